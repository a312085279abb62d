"""The schedule has used up the learning rate long before the run ends."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.aftermath import stopped_falling
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.history import History, history
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of


@signature(
    "lr-starvation",
    title="The schedule has used up the learning rate long before the run ends",
    needs=("run.lr", "run.loss"),
    explains=("update-ratio-low", "loss-plateau", "context-blind-plateau"),
    causes=("schedule-bug", "learning-rate-too-low", "precision-overflow"),
)
def lr_starvation(
    run: Run, *, low: float = 0.02, budget: float = 0.2, withheld: float = 0.9
) -> Iterator[Finding]:
    """What it means: the rest of the run is spent on steps that teach nothing, while the loss could still
    have fallen.

    How it is detected: to the end of the run, and for `budget` of it, the learning rate is below `low` of
    its peak; or a gradient scaler withheld the share `withheld` of these steps. It is a warning where that
    cost progress: the loss was falling over the last half of the steps until then, by more than noise
    explains and by 1 % of the progress, and over as many steps from there on it fell by less than half of
    that; else info. It needs no update to be measured, and no unit of the loss. Calibrated on linear decays
    of a small transformer's rate over a third of its steps, to 1e-1 (quiet), 1e-2 (fires: 2.96 nat for
    2.35) and 1e-3 of the peak (3.01), and on CALIBRATED.

    Look-alikes: the tail of a cosine to zero is below 1 % for 6 % of the run, that of a linear decay for 1
    %; at a milestone the loss falls faster than before. Updates that are small for another reason
    are update-ratio-low, adam-eps-dominated or low-precision-loss.

    Fixes: give the schedule the true number of optimizer steps, and a floor of 10 % of the peak; raise the
    rate again to a third of the peak or more, with a short warm-up.

    Reference: Karpathy, A recipe for training neural networks, 2019; Loshchilov and Hutter 2017 (SGDR,
    arXiv 1608.03983).

    Facts: lr, lr_peak, budget_left (share), withheld (share), still_falling (share of the progress).
    """
    curve, rate = loss_curve(run), schedule(run).rate
    if len(rate) < 50 or len(curve.values) < 50:
        raise NotEvaluable(f"only {min(len(rate), len(curve.values))} steps were recorded")
    peak = float(rate.values.max())
    skips = history(run, "run.skipped")
    starved = _since(rate.steps, rate.values < 0.99 * low * peak) if peak > 0 else None
    lost = _withheld(skips, budget, withheld)
    start = starved if starved is not None else lost
    if start is None or start >= run.steps or (run.steps - start) < budget * run.steps or curve.several:
        return
    if start <= schedule(run).warmup and starved is not None:
        return
    falling = stopped_falling(curve, start)
    left = 1.0 - start / run.steps
    now = float(np.median(rate.within(start, run.steps).values))
    share = float(np.mean(skips.within(start, run.steps).values > 0)) if len(skips) else 0.0
    why = (
        f"The learning rate is {figure(now)} since step {start}, {figure(100 * now / peak)} % of its peak"
        if starved is not None
        else f"The gradient scaler withheld {share:.0%} of the steps since step {start}"
    )
    yield Finding(
        severity=Severity.warning if falling > 0 else Severity.info,
        confidence=0.85 if falling > 0 else 0.5,
        sites=("run",),
        onset_step=start,
        peak_step=start,
        last_step=int(rate.steps[-1]),
        message=f"{why}, with {left:.0%} of the run to go"
        + (", and the loss was still falling." if falling > 0 else "."),
        value=now,
        threshold=low * peak,
        evidence=(
            Evidence("run.lr", ("run",), threshold=low * peak, log=True),
            Evidence("run.loss", ("run",)),
        ),
        facts={
            "lr": now,
            "lr_peak": peak,
            "budget_left": left,
            "withheld": share,
            "still_falling": falling,
        },
    )


def _since(steps: np.ndarray, low: np.ndarray) -> int | None:
    """The step from which on it was low to the end; None where it is not at the end."""
    high = np.flatnonzero(~low)
    first = int(high[-1]) + 1 if high.size else 0
    return int(steps[first]) if first < len(steps) else None


def _withheld(skips: History, budget: float, share: float) -> int | None:
    """Where that many of the steps since were withheld: the longest such end of the run."""
    known = skips.finite()
    if len(known) < 50:
        return None
    from_end = np.cumsum(known.values[::-1] > 0) / np.arange(1, len(known) + 1)
    enough = np.flatnonzero(from_end >= share)
    if not enough.size or enough[-1] + 1 < max(20.0, budget * len(known)):
        return None
    longest = known.within(int(known.steps[len(known) - 1 - int(enough[-1])]), int(known.steps[-1]))
    return int(longest.steps[int(np.argmax(longest.values > 0))])


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
def _every_step_withheld(rng: np.random.Generator) -> Run:
    skipped = np.where(np.arange(400) < 120, 0.0, 1.0)
    run = _run(rng, np.full(400, 1e-2))
    loss = run.table("run.loss").first().copy()
    loss[120:] = loss[110:120].mean() + 0.05 * rng.standard_normal(280)
    return run_of({"run.lr": np.full(400, 1e-2), "run.loss": loss, "run.skipped": skipped})


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
def _warms_up_still(rng: np.random.Generator) -> Run:
    return _run(rng, 1e-2 * (np.arange(200) + 1) / 10_000)
