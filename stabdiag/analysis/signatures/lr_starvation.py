"""The schedule has used up the learning rate long before the run ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stabdiag.analysis.aftermath import stopped_falling
from stabdiag.analysis.anatomy import gradient_slope
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.consequence import stuck
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.analysis.pretrained import pretrained
from stabdiag.analysis.robust import Doubles
from stabdiag.analysis.step_size import schedule
from stabdiag.analysis.updates import updates
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

LONG = 1000
"""Steps after which the updates of a run that goes on may be said to add up to little."""


@signature(
    "lr-starvation",
    title="The schedule has used up the learning rate long before the run ends",
    needs=("run.lr", "run.loss"),
    explains=("update-ratio-low", "loss-plateau", "context-blind-plateau"),
    causes=("schedule-bug", "learning-rate-too-low", "precision-overflow"),
)
def lr_starvation(
    run: Run, *, low: float = 0.02, budget: float = 0.2, withheld: float = 0.9, path: float = 0.05
) -> Iterator[Finding]:
    """What it means: the rest of the run is spent on steps that teach nothing, while the loss could still
    have fallen.

    How it is detected: to the end of the run, and for `budget` of it, the learning rate is below `low` of its
    peak; or a gradient scaler withheld the share `withheld` of these steps. It is a warning where that cost
    progress: the loss was falling over the last half of the steps until then, or since the last milestone, by
    more than noise explains and by 1 % of the progress, and over as many steps from there on it fell by less
    than half of that; or next to nothing had been learned, and nothing was from there on; else info. And a
    warning where the loss made no progress, or the weights were fresh at the start, and the update ratios of
    the weight matrices add up, over the whole run, to less than `path`, in the median; and in every one of
    them where gradients vanish toward the input; while a run goes on, after 1,000 steps. Trainings that
    learned from scratch have 0.6 and more, the gentlest tuning of 300 steps 0.26. The first two need no
    update to be measured, and none a unit of the loss. Calibrated on linear decays of a small transformer's
    rate over a third of its steps, to 1e-1 (quiet), 1e-2 (fires: 2.96 nat for 2.35) and 1e-3 of the peak
    (3.01), and on 144 healthy runs of 68,000 steps: no alarm.

    Look-alikes: the tail of a cosine to zero is below 1 % for 6 % of the run, that of a linear decay for 1
    %; at a milestone the loss falls faster than before. Updates that are small for another reason are
    update-ratio-low, adam-eps-dominated or low-precision-loss.

    Fixes: give the schedule the true number of optimizer steps, and a floor of 10 % of the peak; raise the
    rate again to a third of the peak or more, with a short warm-up.

    Reference: Karpathy, A recipe for training neural networks, 2019; Loshchilov and Hutter 2017 (SGDR,
    arXiv 1608.03983).

    Facts: lr, lr_peak, budget_left (share), still_falling (share of the progress), withheld (share), path.
    """
    curve, rate = loss_curve(run), schedule(run).rate
    if len(rate) < 50 or len(curve.values) < 50:
        raise NotEvaluable(f"only {min(len(rate), len(curve.values))} steps were recorded")
    ways = (
        _by_schedule(run, curve, low),
        _by_scaler(run, curve, budget, withheld),
        _from_the_start(run, curve, path),
    )
    long = [way for way in ways if way is not None and run.steps - way.start >= budget * run.steps]
    if curve.several or not long:
        return
    found = max(long, key=lambda way: way.lost > 0)  # the first of those that cost something
    peak, now = float(rate.values.max()), float(np.median(rate.within(found.start, run.steps).values))
    lost = found.lost > 0
    left = f", with {1 - found.start / run.steps:.0%} of the run to go" if found.start else ""
    yield Finding(
        severity=Severity.warning if lost else Severity.info,
        confidence=0.85 if lost else 0.5,
        sites=("run",),
        onset_step=found.start,
        peak_step=found.start,
        last_step=int(rate.steps[-1]),
        message=f"{found.words}{left}{found.then}.",
        value=now,
        threshold=low * peak,
        evidence=(
            Evidence("run.lr", ("run",), threshold=low * peak, log=True),
            Evidence("run.loss", ("run",)),
        ),
        facts={
            "lr": now,
            "lr_peak": peak,
            "budget_left": 1.0 - found.start / run.steps,
            "still_falling": found.lost,
            **found.facts,
        },
    )


@dataclass(frozen=True)
class Starved:
    """From which step on, how it shows, what came of it, and by what share of the progress the loss had
    still been falling: 0 where nothing was lost.
    """

    start: int
    words: str
    then: str
    lost: float
    facts: dict[str, float]


def _by_schedule(run: Run, curve: LossCurve, low: float) -> Starved | None:
    plan = schedule(run)
    high = np.flatnonzero(np.abs(plan.rate.values) >= 0.99 * low * plan.peak)
    first = int(high[-1]) + 1 if high.size else 0
    if plan.peak <= 0 or first >= len(plan.rate) or plan.rate.steps[first] <= plan.warmup:
        return None
    start = int(plan.rate.steps[first])
    # At a milestone the loss falls: whether it still did is asked of the time since.
    lasted = np.flatnonzero(plan.rate.values[1:first] < 0.5 * plan.rate.values[: first - 1])
    since = int(plan.rate.steps[lasted[-1] + 1]) if lasted.size else 0
    lost = stopped_falling(curve, start, since)
    words = _rates(plan.rate.values[first:], plan.peak, start)
    then = ", and the loss was still falling" if lost else ""
    if not lost and stuck(run, start):
        lost, then = 1.0, ", and next to nothing had been learned"
    return Starved(start, words, then, lost, {})


def _rates(rates: Doubles, peak: float, start: int) -> str:
    """The rate since step `start`: one value where it stays, the first and the last where it falls on."""
    begin, usual, end = float(rates[0]), float(np.median(rates)), float(rates[-1])
    if usual > 0.5 * begin:
        return (
            f"The learning rate is {figure(usual)} since step {start}, {figure(100 * usual / peak)} % of "
            "its peak"
        )
    return (
        f"The learning rate is {figure(begin)} at step {start}, {figure(100 * begin / peak)} % of its peak, "
        f"and falls on to {figure(end)}"
    )


def _by_scaler(run: Run, curve: LossCurve, budget: float, share: float) -> Starved | None:
    """The longest end of the run of which that share of steps was withheld."""
    known = history(run, "run.skipped").finite()
    if len(known) < 50:
        return None
    from_end = np.cumsum(known.values[::-1] > 0) / np.arange(1, len(known) + 1)
    enough = np.flatnonzero(from_end >= share)
    if not enough.size or enough[-1] + 1 < max(20.0, budget * len(known)):
        return None
    end = known.within(int(known.steps[len(known) - 1 - int(enough[-1])]), int(known.steps[-1]))
    start = int(end.steps[int(np.argmax(end.values > 0))])
    part, lost = float(np.mean(end.values > 0)), stopped_falling(curve, start)
    words = f"The gradient scaler withheld {part:.0%} of the steps since step {start}"
    return Starved(start, words, ", and the loss was still falling" if lost else "", lost, {"withheld": part})


def _from_the_start(run: Run, curve: LossCurve, path: float) -> Starved | None:
    """All updates together, had they all gone one way, could not have changed the weights, and did not."""
    fresh = pretrained(run) is None
    if "update.ratio" not in run or run.steps < 100 or (curve.made_progress and not fresh):
        return None
    goes_on = run.info.started is not None and run.info.ended is None
    if goes_on and run.steps < LONG:
        return None  # what it adds up to in the end is not known
    taken = updates(run)
    known = taken.middle[np.isfinite(taken.middle)]
    length = float(np.mean(known)) * run.steps if len(known) >= 10 else 0.0
    # What learned a little moved at least its head: of that less is asked.
    if not 0 < length < (2 * path if curve.made_progress else path) or schedule(run).rising(run.steps):
        return None
    slope = gradient_slope(run, 0)
    each = np.nan_to_num(taken.ratio).sum(axis=0) / np.maximum(np.isfinite(taken.ratio).sum(axis=0), 1)
    fastest = float(each.max()) * run.steps
    if fastest >= path and slope is not None and slope.straightness > 0.5 and slope.per_layer > 0.15:
        return None  # gradients vanish on their way to the input: no rate is right for all
    words = (
        f"All {run.steps} steps together could have changed the weights by {figure(100 * length)} % at most"
    )
    then = ": they are nearly where they began" if curve.made_progress else ": the loss has hardly moved"
    return Starved(int(curve.steps[0]), words, then, 1.0, {"path": length})


def _run(rng: np.random.Generator, rate: np.ndarray, speed: float = 150.0) -> Run:
    done = np.cumsum(rate / rate.max())
    loss = 2.0 + 2.8 * np.exp(-done / speed) + 0.05 * rng.standard_normal(len(rate))
    return run_of({"run.lr": rate, "run.loss": loss})


@lr_starvation.fires_on
def _horizon_too_short(rng: np.random.Generator) -> Run:
    return _run(rng, 1e-2 * np.maximum(1 - np.arange(600) / 200, 1e-3))


@lr_starvation.fires_on
def _switched_off(rng: np.random.Generator) -> Run:
    return _run(rng, np.where(np.arange(400) < 120, 1e-2, 0.0))


@lr_starvation.fires_on
def _cut_while_the_loss_still_rested_where_all_rest_at_first(rng: np.random.Generator) -> Run:
    loss = 3.2 + 1.2 * np.exp(-np.arange(400) / 10) + 0.03 * rng.standard_normal(400)
    return run_of({"run.lr": 20.0 * 0.1 ** (np.arange(400) // 80), "run.loss": loss})


@lr_starvation.fires_on
def _every_step_withheld(rng: np.random.Generator) -> Run:
    skipped = np.where(np.arange(400) < 120, 0.0, 1.0)
    run = _run(rng, np.full(400, 1e-2))
    loss = run.table("run.loss").first().copy()
    loss[120:] = loss[110:120].mean() + 0.05 * rng.standard_normal(280)
    return run_of({"run.lr": np.full(400, 1e-2), "run.loss": loss, "run.skipped": skipped})


@lr_starvation.fires_on
def _rate_of_nothing(rng: np.random.Generator) -> Run:
    series = {
        "run.lr": np.full(400, 1e-6),
        "run.loss": 2.3 - 1e-4 * np.arange(400) + 0.01 * rng.standard_normal(400),
        "update.ratio": 3e-5 * np.exp(0.2 * rng.standard_normal((400, 5))),
    }
    return run_of(series, sites={"update": weights("update", 5)})


@lr_starvation.quiet_on
def _cosine_to_zero(rng: np.random.Generator) -> Run:
    return _run(rng, 1e-2 * (1 + np.cos(np.pi * np.arange(600) / 600)) / 2 + 1e-9)


@lr_starvation.quiet_on
def _milestones_once_converged(rng: np.random.Generator) -> Run:
    return _run(rng, np.repeat([0.1, 0.01, 0.0005], 200), speed=15)


@lr_starvation.quiet_on
def _milestone_at_which_the_loss_falls(rng: np.random.Generator) -> Run:
    steps = np.arange(600)
    loss = (
        1.0 + 2.0 * np.exp(-steps / 150) - np.where(steps < 400, 0.0, 0.5 - 0.5 * np.exp((400 - steps) / 30))
    )
    rate = np.where(steps < 400, 0.1, 0.001)
    return run_of({"run.lr": rate, "run.loss": loss + 0.03 * rng.standard_normal(600)})


@lr_starvation.quiet_on
def _milestone_after_the_one_that_paid(rng: np.random.Generator) -> Run:
    steps = np.arange(600)
    loss = 1.0 + 2.0 * np.exp(-steps / 40) - np.where(steps < 300, 0.0, 0.5)
    rate = np.select([steps < 300, steps < 450], [0.1, 0.01], 0.001)
    return run_of({"run.lr": rate, "run.loss": loss + 0.03 * rng.standard_normal(600)})


@lr_starvation.quiet_on
def _warms_up_still(rng: np.random.Generator) -> Run:
    return _run(rng, 1e-2 * (np.arange(200) + 1) / 10_000)
