"""The figures, on outcomes that are written down."""

from __future__ import annotations

import math

import pytest

from stabdiag.core.finding import Severity
from stabdiag.zoo.case import Case
from stabdiag.zoo.fault import FAULTS, Planted
from stabdiag.zoo.outcome import Outcome, Told
from stabdiag.zoo.score import CONTROL, NOTHING, Rate, Row, Score, Share


def told(root, onset=100, severity=Severity.warning, sites=("run",), causes=(), fixes=()):
    return Told(root, severity, onset, sites, causes, fixes)


def outcome(fault, *incidents, dose=None, seed=0, step=100, sites=(), shows=10, **more):
    entry = FAULTS[fault]
    case = Case(fault, "gpt", "adamw", seed, entry.doses[-1] if dose is None else dose)
    return Outcome(case, Planted(step, sites, shows), 400, 1, incidents, **more)


def control(*incidents, seed=0, steps=1000):
    return Outcome(Case("healthy", "gpt", "adamw", seed), None, steps, 1, incidents)


def test_a_fault_is_found_by_its_name_or_an_alias():
    found = [outcome("lr-jump", told(name), seed=i) for i, name in enumerate(FAULTS["lr-jump"].signatures)]
    score = Score([*found, outcome("lr-jump", told("frozen-parameters"), seed=9)])
    assert score.recall == Share(4, 5)
    assert score.rows[0] == Row("schedule-jump", found=4, missed=1, false=0)


def test_a_finding_before_the_fault_is_a_false_alarm():
    early = outcome("lr-jump", told("schedule-jump", onset=50))
    assert early.right is None
    assert [t.root for t in early.false] == ["schedule-jump"]


def test_a_true_consequence_is_neither_right_nor_false():
    consequence = outcome("lr-jump", told("update-ratio-high"))
    assert consequence.right is None
    assert consequence.false == ()


def test_a_loss_that_went_wrong_may_be_told_of_any_fault_that_did_harm():
    plateau = told("context-blind-plateau")
    assert outcome("frozen-block", plateau, harmed=150).false == ()
    assert outcome("frozen-block", plateau).false == (plateau,)


def test_an_info_is_no_alarm_and_no_answer_but_where_the_fault_is_one():
    assert control(told("loss-spike", severity=Severity.info)).loud == ()
    mild = outcome("lost-optimizer-state", told("optimizer-state-lost", severity=Severity.info))
    assert mild.right is not None
    assert outcome("memory-leak", told("memory-growth", severity=Severity.info)).right is None


def test_of_a_fault_that_matters_by_its_harm_a_note_is_right_where_it_did_none():
    note = told("schedule-jump", severity=Severity.info)
    assert outcome("lr-jump", note).right is note
    assert outcome("lr-jump", note).answer is note
    assert outcome("lr-jump", note, harmed=20).right is note
    assert outcome("lr-jump", note, harmed=120).right is None


def test_a_benign_dose_need_not_be_found_unless_it_did_harm():
    assert not outcome("lr-jump", dose=3.0).counted
    assert outcome("lr-jump", dose=3.0, harmed=120).counted
    assert not outcome("lr-jump", dose=3.0, harmed=20).counted
    assert outcome("lr-jump", dose=30.0).counted


def test_doses_may_fall_as_they_get_worse():
    assert outcome("clip-too-tight", dose=0.003).counted
    assert not outcome("clip-too-tight", dose=0.3).counted


def test_f1_is_of_precision_and_recall():
    row = Row("x", found=6, missed=2, false=4)
    assert row.precision == 0.6
    assert row.recall == 0.75
    assert row.f1 == pytest.approx(2 * 0.6 * 0.75 / (0.6 + 0.75))


def test_macro_f1_is_over_what_was_planted():
    score = Score(
        [outcome("lr-jump", told("schedule-jump")), outcome("dead-relu"), control(told("loss-spike"))]
    )
    assert score.macro_f1 == 0.5


def test_precision_counts_false_alarms_wherever_they_are():
    score = Score(
        [outcome("lr-jump", told("schedule-jump"), told("frozen-parameters")), control(told("loss-spike"))]
    )
    assert score.precision == Share(1, 3)


def test_sites_match_globs_and_have_a_rank():
    placed = outcome(
        "frozen-block", told("frozen-parameters", sites=("head", "blocks.1.x")), sites=("blocks.1.*",)
    )
    score = Score([placed])
    assert placed.site_rank() == 1
    assert score.site(1) == Share(0, 1)
    assert score.site(3) == Share(1, 1)


def test_faults_without_a_place_say_nothing_of_sites():
    assert Score([outcome("lr-jump", told("schedule-jump"))]).site(1) == Share(0, 0)


def test_the_onset_may_lie_in_the_window_give_or_take_the_interval():
    inside, late = (outcome("lr-jump", told("schedule-jump", onset=onset)) for onset in (111, 120))
    assert inside.onset_error() == 0
    assert late.onset_error() == 9


def test_causes_and_fixes_are_named_first_or_among_three():
    causes = ("missing-warmup", "benign-transient", "schedule-bug")
    score = Score([outcome("lr-jump", told("schedule-jump", causes=causes, fixes=("fix-schedule",)))])
    assert score.cause(1) == Share(0, 1)
    assert score.cause() == Share(1, 1)
    assert score.fix(1) == Share(1, 1)


def test_lead_is_against_the_loss_alone_and_missing_is_the_worst():
    leads = [
        outcome("growing-head", told("output-logit-drift"), alarm=150, loss_alarm=200),
        outcome("growing-head", told("output-logit-drift"), alarm=150, seed=1),
        outcome("growing-head", loss_alarm=200, seed=2),
        outcome("corrupt-batch", told("bad-batch"), alarm=100, loss_alarm=100),
    ]
    assert Score(leads).leads == [50.0, math.inf, -math.inf]
    assert Score(leads).lead_share == Share(2, 3)


def test_false_alarms_have_the_exact_interval_of_poisson():
    low, high = Rate(0, 30_000).interval
    assert low == 0
    assert high == pytest.approx(1000 * 3.688879 / 30_000, rel=1e-6)
    low, high = Rate(3, 1000).interval
    assert (low, high) == (pytest.approx(0.618672, rel=1e-5), pytest.approx(8.767273, rel=1e-5))


def test_false_alarms_are_counted_on_healthy_steps_alone():
    score = Score(
        [control(told("loss-spike")), control(seed=1), outcome("lr-jump", told("frozen-parameters"))]
    )
    assert score.false_alarms == Rate(1, 2000)


def test_the_confusion_matrix_tells_what_was_said_first():
    score = Score([
        outcome("lr-jump", told("loss-divergence")),
        outcome("dead-relu", told("vanishing-gradient")),
        outcome("bad-init"),
        control(),
    ])  # fmt: skip
    assert score.confusion == {
        ("schedule-jump", "schedule-jump"): 1,
        ("dead-units", "vanishing-gradient"): 1,
        ("bad-initialization", NOTHING): 1,
        (CONTROL, NOTHING): 1,
    }


def test_doses_tell_where_detection_begins():
    weak, strong = outcome("lr-jump", dose=3.0), outcome("lr-jump", told("schedule-jump"), dose=100.0)
    assert Score([weak, strong]).by_dose() == {"lr-jump": [(3.0, Share(0, 1)), (100.0, Share(1, 1))]}
