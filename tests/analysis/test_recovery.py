"""Whether a change undid a fault: by the loss, and by what the analyzer still finds."""

from __future__ import annotations

import numpy as np
import pytest

from stabdiag.analysis.recovery import alarms, judge, level_at, of_updates, trend_at, yardstick
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.event import Event
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.synthetic import run_of

STEPS = 300


def run(losses):
    return run_of({"run.loss": losses, "run.nonfinite": ~np.isfinite(losses)})


def falling(noise=0.02, seed=0):
    steps = np.arange(STEPS)
    return 4 - 0.5 * np.log1p(steps) + np.random.default_rng(seed).normal(0, noise, STEPS)


def broken(at=200, to=9.0):
    losses = falling()
    losses[at:] = to
    return losses


def test_the_level_is_the_median_of_the_last_tenth_and_none_where_it_is_lost():
    losses = falling()
    losses[290] = 1e9
    losses[291] = np.nan
    assert level_at(run(losses), STEPS) == pytest.approx(4 - 0.5 * np.log(285), abs=0.02)
    assert level_at(run(broken(to=np.nan)), STEPS) is None
    assert level_at(run_of({"run.lr": np.ones(9)}), 9) is None


def test_the_trend_goes_on_as_a_healthy_loss_would():
    assert trend_at(run(broken()), 200, STEPS) == pytest.approx(4 - 0.5 * np.log(STEPS), abs=0.05)


def test_the_trend_promises_no_more_progress_than_there_was():
    losses = np.linspace(5, 4, STEPS)
    assert trend_at(run(losses), 30, 100_000) >= losses[0] - 2 * (losses[0] - losses[30])


def test_a_loss_that_was_rising_is_not_taken_to_rise_for_ever():
    losses = np.linspace(1, 2, STEPS)
    assert trend_at(run(losses), 200, STEPS) == pytest.approx(np.median(losses[134:200]), abs=0.05)


def test_there_is_no_trend_before_the_first_steps():
    assert trend_at(run(broken()), 10, STEPS) is None


@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (-100, 1), (0, 1e-6), (5, 1e4)])
def test_recovery_does_not_depend_on_unit_or_sign_of_the_loss(shift, scale):
    def of(losses):
        return run(shift + scale * losses)

    stick = yardstick(of(broken()), 200, STEPS, None, [])
    half = of(np.where(np.arange(STEPS) < 200, falling(), (falling() + 9) / 2))
    assert stick.recovery(level_at(of(falling()), STEPS)) == pytest.approx(1, abs=0.02)
    assert stick.recovery(level_at(half, STEPS)) == pytest.approx(0.5, abs=0.02)
    assert stick.recovery(level_at(of(broken()), STEPS)) == pytest.approx(0, abs=0.02)
    assert not stick.worse(level_at(of(broken()), STEPS))
    assert stick.worse(level_at(of(broken(to=12)), STEPS))
    assert stick.worse(level_at(of(broken(to=np.inf)), STEPS))


def test_a_loss_that_is_lost_counts_as_the_worst_that_was_seen():
    stick = yardstick(run(broken(to=np.nan)), 200, STEPS, None, [])
    assert stick.fault is None
    assert stick.recovery(None) == pytest.approx(0)
    assert stick.recovery(level_at(run(falling()), STEPS)) == pytest.approx(1, abs=0.02)
    assert not stick.worse(None)


def test_a_fault_that_the_loss_does_not_show_has_no_recovery():
    stick = yardstick(run(falling()), 200, STEPS, None, [])
    assert stick.recovery(level_at(run(falling(seed=1)), STEPS)) is None


def test_a_fix_that_gives_the_healthy_loss_makes_nothing_worse_where_the_fault_has_lowered_it():
    twin = run(falling())
    stick = yardstick(run(falling() - 1), 5, STEPS, twin, [])
    assert not stick.worse(level_at(twin, STEPS))
    assert stick.worse(level_at(run(falling() + 1), STEPS))


def test_a_healthy_run_is_a_better_measure_than_a_trend_and_the_best_replay_a_worse_one():
    fault, twin = run(broken(at=5)), run(falling())
    assert "the healthy run" in yardstick(fault, 5, STEPS, twin, []).against
    replayed = [(run(falling() + 1), 2.0), (twin, 1.2), (fault, None)]
    stick = yardstick(fault, 5, STEPS, None, replayed)
    assert (stick.healthy, stick.against) == (1.2, "the best of the replays")
    assert yardstick(fault, 5, STEPS, None, []).recovery(1.0) is None


def diagnosis(verdict="unstable", **found):
    findings = tuple(
        Finding(Severity[severity], 0.9, ("run",), 3, 3, 3, "", signature=name.replace("_", "-"))
        for name, severity in found.items()
    )
    return Diagnosis(verdict, (), findings, (), {})


BEFORE = diagnosis(loss_spike="critical", dead_units="warning", exploding_gradient="warning")
FAULT = {"loss-spike", "exploding-gradient"}


@pytest.mark.parametrize(
    ("found", "recovery", "worse", "mark"),
    [
        (diagnosis("stable", dead_units="warning"), 0.95, False, "verified"),
        (diagnosis("stable"), None, False, "verified"),
        (diagnosis(loss_spike="warning"), 0.95, False, "verified"),
        (diagnosis(loss_spike="warning"), None, False, "did not help"),
        (diagnosis(loss_spike="critical"), 0.95, False, "did not help"),
        (diagnosis(dead_units="warning", exploding_gradient="warning"), 0.95, False, "verified"),
        (diagnosis("stable"), 0.6, False, "did not help"),
        (diagnosis(loss_plateau="warning"), 0.95, False, "did not help"),
        (diagnosis(dead_units="critical"), 0.95, False, "did not help"),
        (diagnosis("failed"), 0.95, False, "made it worse"),
        (diagnosis("stable"), -0.5, True, "made it worse"),
    ],
)
def test_a_cure_undoes_the_damage_and_raises_no_new_alarm(found, recovery, worse, mark):
    assert judge(found, BEFORE, FAULT, recovery, worse).mark == mark


@pytest.mark.parametrize(("action", "left"), [("skipped", 0), ("clipped", 1)])
def test_what_was_worst_in_a_step_that_was_left_out_is_no_alarm(action, left):
    acted = Event("intervention", 0.0, 3, data={"intervention": "skip-batch", "action": action})
    told = of_updates(diagnosis(bad_batch="warning"), run_of({"run.loss": falling()}, events=[acted]))
    assert len(alarms(told)) == left
