"""What is judged, calibration never saw."""

from __future__ import annotations

from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.case import TWIN, Case
from stabdiag.zoo.control import CONTROLS
from stabdiag.zoo.fault import FAULTS
from stabdiag.zoo.optimizer import OPTIMIZERS
from stabdiag.zoo.plan import CALIBRATION, JUDGED, PARTS, cases


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
    for case in judged:
        pairs = [
            {a, o}
            for a in JUDGED.architectures
            for o in JUDGED.optimizers
            if case.entry.fits(ARCHITECTURES[a], OPTIMIZERS[o])
        ]
        if case.seed == JUDGED.seed and case.subject != TWIN and any(pair & {*JUDGED.own} for pair in pairs):
            assert {case.architecture, case.optimizer} & {*JUDGED.own}, case


def test_half_of_the_zoo_is_healthy():
    planned = cases(JUDGED, 1)
    healthy = sum(not case.is_fault for case in planned)
    assert healthy >= len(planned) / 2


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
