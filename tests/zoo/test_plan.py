"""What is judged, calibration never saw."""

from __future__ import annotations

import pytest

from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.case import Case
from stabdiag.zoo.control import CONTROLS
from stabdiag.zoo.fault import FAULTS
from stabdiag.zoo.optimizer import OPTIMIZERS
from stabdiag.zoo.plan import CALIBRATION, JUDGED, PARTS, UNSEEN, cases

CONFINED = {
    "exploding-gradient": "only the tanh network is a row of layers with neither residuals nor norms",
    "saturated-layer": "none of them has a bounded activation between its layers",
    "vanishing-gradient": "of none the activation can be chosen; sigmoid-blocks plants the same in them",
    "exploding-recurrence": "the recurrence of the state space model decays by its make",
    "heavy-kl": "none of them has a latent space",
    "wide-posterior": "none of them has a latent space",
    "strong-discriminator": "none of them has an opponent",
    "unbalanced-router": "none of them has a router",
}
"""Why these faults can be planted in none of the architectures that calibration never saw."""
TURNS = 2
"""Cases of each fault in the published measurement."""


def test_the_same_cases_come_each_time():
    assert cases(JUDGED, 2) == cases(JUDGED, 2)


def test_more_rounds_keep_what_fewer_had():
    assert {*cases(CALIBRATION, 1)} <= {*cases(CALIBRATION, 3)}


def test_no_two_cases_share_a_directory():
    for part in PARTS:
        planned = cases(part, 3)
        assert len({case.name for case in planned}) == len(planned)


def test_every_fault_and_every_control_is_in_every_part():
    for part in PARTS:
        subjects = {case.subject for case in cases(part, 1)}
        missing = {entry.id for entry in (*FAULTS, *CONTROLS)} - subjects
        assert missing == set(), part.id


def test_every_fault_has_its_twin_of_the_same_seed_and_shape():
    planned = {*cases(JUDGED, 2)}
    for case in planned:
        if case.is_fault:
            assert case.twin in planned
            assert (case.twin.seed, case.twin.architecture) == (case.seed, case.architecture)
            assert case.twin.form.shape == case.form.shape
            assert case.twin.entry.fits(ARCHITECTURES[case.architecture], OPTIMIZERS[case.optimizer])


def test_what_breaks_a_shape_is_not_in_its_twin():
    case = Case("vanishing-gradient", "mlp", "adamw", 1)
    names = [{n for n, _ in c.prepared()[0].model.named_modules()} for c in (case, case.twin)]
    assert "9" in names[0]
    assert "9" not in names[1]


def test_the_parts_share_no_seed_and_the_judged_one_prefers_what_is_its_own():
    calibration, judged = cases(CALIBRATION, 6), cases(JUDGED, 6)
    assert not {c.seed for c in calibration} & {c.seed for c in judged}
    assert not {c.architecture for c in calibration} & {*JUDGED.own}
    assert not {c.optimizer for c in calibration} & {*JUDGED.own}
    twins = {case.twin for case in judged if case.is_fault}
    for case in judged:
        pairs = [
            {a, o}
            for a in JUDGED.architectures
            for o in JUDGED.optimizers
            if case.entry.fits(ARCHITECTURES[a], OPTIMIZERS[o])
        ]
        if case.seed == JUDGED.seed and case not in twins and any(pair & {*JUDGED.own} for pair in pairs):
            assert {case.architecture, case.optimizer} & {*JUDGED.own}, case


@pytest.mark.parametrize("rounds", [1, TURNS, 4])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.id)
def test_half_of_the_zoo_is_healthy(part, rounds):
    planned = cases(part, rounds)
    healthy = sum(not case.is_fault for case in planned)
    assert healthy >= len(planned) / 2


def fitting(entry, architectures):
    return {
        architecture
        for architecture in architectures
        for optimizer in JUDGED.optimizers
        if entry.fits(ARCHITECTURES[architecture], OPTIMIZERS[optimizer])
    }


def test_every_fault_reaches_what_calibration_never_saw_or_it_is_said_why_not():
    unreached = {fault.id for fault in FAULTS if not fitting(fault, UNSEEN[0])}
    assert unreached == CONFINED.keys()


def test_each_fault_is_judged_by_two_strong_cases_that_differ_in_all_that_can():
    planned = [case for case in cases(JUDGED, TURNS) if case.is_fault]
    for fault in FAULTS:
        mine = [case for case in planned if case.subject == fault.id]
        assert len(mine) == TURNS, fault.id
        new, anywhere = fitting(fault, UNSEEN[0]), fitting(fault, JUDGED.architectures)
        drawn = {case.architecture for case in mine}
        assert len(drawn) == min(TURNS, len(anywhere)), fault.id
        assert len(drawn & new) == min(TURNS, len(new)), fault.id
        optimizers = {
            o for o in JUDGED.optimizers for a in drawn if fault.fits(ARCHITECTURES[a], OPTIMIZERS[o])
        }
        assert len({case.optimizer for case in mine}) == min(TURNS, len(optimizers)), fault.id
        strong = [dose for dose in fault.doses if fault.has_to_be_found(dose)]
        if strong:
            assert {case.dose for case in mine} <= {*strong}, fault.id
            assert len({case.dose for case in mine}) == min(TURNS, len(strong)), fault.id


def test_calibration_goes_from_fatal_to_benign():
    doses = [case.dose for case in cases(CALIBRATION, 3) if case.subject == "hot-layer"]
    assert doses == [300.0, 30.0, 3.0]


def test_one_round_takes_minutes_and_the_published_ones_not_much_longer():
    """At some eight seconds a case and core."""
    assert len(cases(JUDGED, 1)) <= 150
    assert len(cases(JUDGED, TURNS)) <= 260


def test_a_case_survives_json():
    case = Case("dead-relu", "mlp", "sgd", 7, 5.0, 10)
    assert Case.from_json(case.to_json()) == case


def test_the_zoo_has_what_was_promised():
    assert len(ARCHITECTURES) >= 12
    traits = {trait for architecture in ARCHITECTURES for trait in architecture.traits}
    assert {"batchnorm", "residual", "recurrent", "router", "latent", "adversarial", "attention"} <= traits
    assert {"sgd", "adam", "adamw", "adamw-999", "lion", "muon", "schedule-free"} <= {
        o.id for o in OPTIMIZERS
    }
