"""The optimizer has forgotten its moments in the middle of the run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.aftermath import Aftermath, aftermath
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import harmed
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

MOST = 64
"""Losses of the state after which the loss is looked at."""


@signature(
    "optimizer-state-lost",
    title="The optimizer has forgotten its moments in the middle of the run",
    needs=("run.optimizer_age",),
    explains=(
        "adam-stale-second-moment",
        "lr-divergence",
        "update-ratio-high",
        "loss-spike",
        "loss-divergence",
        "loss-plateau",
        "distribution-shift-or-resume",
    ),
    causes=("optimizer-state-lost",),
)
def optimizer_state_lost(
    run: Run, *, grown: float = 20.0, young: float = 20.0, times: float = 3.0
) -> Iterator[Finding]:
    """What it means: the state of the optimizer was empty again at a step: a checkpoint was loaded without
    it, the optimizer was built anew, or its state was cleared. Adam's next update is a whole learning rate
    in every coordinate, four times the usual, and the noise of a single batch.

    How it is detected: the number of steps that the state has seen, which is exact, begins again. Once it
    had seen `grown` steps, this is told: as a warning where the loss rises thereafter, for three steps or
    more, by 4 robust deviations and a twentieth of the progress, critical where the run ends worse for it,
    else info. And as a warning where it happens `times` or more with `young` steps or fewer between: then
    the optimizer never had any moments. The count is no estimate, and never fell in 81 healthy runs of
    35,000 steps.

    Look-alikes: a checkpoint that is loaded with the optimizer's state brings its count along. A second
    phase of training has an optimizer of its own, and usually a warm-up, after which nothing rises. Steps
    that a gradient scaler withheld do not count.

    Fixes: save and load `optimizer.state_dict()`; build the optimizer once, before the loop; where the
    state is gone, warm the rate up again over 1/(1 - β2) steps.

    Reference: Bekman, ML engineering open book, training instabilities; PyTorch, saving and loading a
    general checkpoint.

    Facts: age_before, losses, interval (median steps between), loss_z, lr.
    """
    age = history(run, "run.optimizer_age").finite()
    steps, ages = age.steps, age.values
    if len(steps) < 2:
        raise NotEvaluable("the optimizer has no state, or its age was recorded at fewer than two steps")
    again = np.flatnonzero((np.diff(ages) <= 0) & (ages[1:] <= np.diff(steps))) + 1
    if not again.size:
        return
    interval = float(np.median(np.diff(np.r_[steps[0], steps[again]])))
    never = len(again) >= times and interval <= young
    lost = again if never else again[ages[again - 1] >= grown]
    if not lost.size:
        return
    rises: dict[int, Aftermath | None] = {
        int(at): aftermath(run, int(steps[at]) + 1, 40) for at in lost[:MOST]
    }
    worst = max(rises, key=lambda at: seen.z if (seen := rises[at]) and seen.bad else 0.0)
    rise = rises[worst]
    bad = rise is not None and rise.bad
    severity = Severity.warning if bad or never else Severity.info
    if bad and rise is not None and rise.lost and harmed(run):
        severity = Severity.critical
    at = int(lost[0]) if never or not bad else worst
    facts = {
        "age_before": float(ages[at - 1]),
        "losses": float(len(lost)),
        "interval": interval,
        "loss_z": rise.z if rise else 0.0,
    }
    rate = schedule(run).at(int(steps[at]))
    many = f", and at {len(lost) - 1} further steps" if len(lost) > 1 else ""
    then = f"; the loss rises by {figure(rise.z)} robust deviations" if bad and rise else ""
    if never:
        then += f": it never has a memory of more than {figure(interval)} steps"
    yield Finding(
        severity=severity,
        confidence=0.95 if severity else 0.7,
        sites=("run",),
        onset_step=int(steps[at]),
        peak_step=int(steps[at]),
        last_step=int(steps[lost[-1]]),
        message=f"The optimizer's state was empty again at step {steps[at]}, after {figure(ages[at - 1])} "
        f"steps{many}{then}.",
        value=interval if never else float(ages[at - 1]),
        threshold=young if never else grown,
        evidence=(Evidence("run.optimizer_age", ("run",)), Evidence("run.loss", ("run",))),
        facts=facts if rate is None else {**facts, "lr": rate},
    )


def _run(rng: np.random.Generator, ages: np.ndarray, rise: float = 0.0, at: int = 200) -> Run:
    loss = 2.0 + 2.8 * np.exp(-np.arange(400) / 60) + 0.05 * rng.standard_normal(400)
    loss[at + 1 : at + 20] += rise
    return run_of({"run.optimizer_age": ages, "run.loss": loss})


@optimizer_state_lost.fires_on
def _loaded_without_its_state(rng: np.random.Generator) -> Run:
    return _run(rng, np.r_[1:201, 1:201], rise=1.0)


@optimizer_state_lost.fires_on
def _built_anew_at_each_step(rng: np.random.Generator) -> Run:
    return _run(rng, np.ones(400))


@optimizer_state_lost.quiet_on
def _second_phase_without_consequence(rng: np.random.Generator) -> Run:
    return _run(rng, np.r_[1:201, 1:201])


@optimizer_state_lost.quiet_on
def _resumed_with_its_state(rng: np.random.Generator) -> Run:
    return _run(rng, np.arange(5001, 5401), rise=1.0)


@optimizer_state_lost.quiet_on
def _went_back_to_a_checkpoint(rng: np.random.Generator) -> Run:
    return _run(rng, np.r_[1:201, 101:301], rise=1.0)
