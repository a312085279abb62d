"""The steps go to and fro, and the loss gets nowhere."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.consequence import LITTLE
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.analysis.robust import trailing_median
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

TURNS = 10
"""Gradients in a row of which the median has to point backwards."""


@signature(
    "oscillating-plateau",
    title="The steps go to and fro, and the loss gets nowhere",
    needs=("run.loss", "run.grad_cosine"),
    explains=("loss-plateau",),
    causes=("learning-rate-too-high", "distribution-shift", "wrong-loss"),
)
def oscillating_plateau(
    run: Run, *, backwards: float = 0.3, undone: float = 0.6, flat: float = 0.02, reached: float = 0.05
) -> Iterator[Finding]:
    """What it means: each step undoes the one before. The learning rate, or its momentum, is too high for
    the floor of the valley, or two kinds of batches in turn ask for opposite things.

    How it is detected: over the last third of the run, at ten or more places, the median cosine of gradients
    in a row is below -`backwards`, and between the halves of that third the level of the loss does not fall
    by more than `flat` of itself, linear or logarithmic, or by more than its noise. A warning where the loss
    stays above `reached` of the way from the first one to the lowest single one, or to zero where it is never
    negative, and the cosine is below -`undone`, so that most of a step is taken back; or where it stays above
    a third of that way; else info. Healthy runs of RMSprop and Adafactor come to -0.4 and -0.5 at the end,
    faults to -0.95. Loss differences are not asked: those of independent batches alternate by construction.
    Calibrated on full-batch gradient descent at the edge of stability, which moves to and fro with a falling
    loss (quiet), on Adam at 0.03 and 0.1 there, and on targets of alternating sign (fires): no warning in 63
    healthy runs of 32,000 steps.

    Look-alikes: edge-of-stability makes progress. Noise of small batches has cosines about zero. A run that
    has converged rests, with a loss near the least it can have.

    Fixes: a third of the learning rate, momentum 0.8 for 0.9, an average of the weights; for alternating
    data, both kinds in each batch.

    Reference: Cohen et al. 2021 (arXiv 2103.00065); Zhang et al. 2021 (AUTOTRAINER, ICSE).

    Facts: grad_cosine (median), loss_end, loss_lowest, lr.
    """
    curve = loss_curve(run, least=100)
    cosine = history(run, "run.grad_cosine").finite()
    tail = cosine.within(int(curve.steps[len(curve.values) * 2 // 3]), run.steps)
    if len(tail) < TURNS:
        raise NotEvaluable(f"the cosine of gradients in a row is known at only {len(tail)} late steps")
    middle = float(np.median(tail.values))
    late = curve.values[len(curve.values) * 2 // 3 :]
    late = late[np.isfinite(late)]
    if middle > -backwards or curve.several or curve.lost_from is not None or len(late) < 30:
        return
    late = (late[:-1] + late[1:]) / 2  # a period of two has no median
    half = len(late) // 2
    first, second = float(np.median(late[:half])), float(np.median(late[half:]))
    error = 3.0 * max(float(np.std(late[half:])), 1e-30) / math.sqrt(half)
    if first - second > max(flat * abs(first), error):
        return
    lowest = float(np.min(curve.values[np.isfinite(curve.values)]))
    floor = min(0.0, lowest) if lowest >= 0 else lowest
    left = (second - floor) / max(curve.start - floor, 1e-30)
    turned = trailing_median(cosine.values, TURNS) < -backwards
    straight = np.flatnonzero(~turned)
    onset = int(cosine.steps[min(int(straight[-1]) + 1 if straight.size else 0, len(turned) - 1)])
    onset = min(onset, int(tail.steps[0]))
    rate = schedule(run).at(onset)
    facts = {"grad_cosine": middle, "loss_end": second, "loss_lowest": lowest}
    yield Finding(
        severity=Severity.warning if left > (reached if middle < -undone else LITTLE) else Severity.info,
        confidence=0.8,
        sites=("run",),
        onset_step=onset,
        peak_step=int(tail.steps[int(np.argmin(tail.values))]),
        last_step=int(tail.steps[-1]),
        message=f"Gradients in a row point against each other (median cosine {figure(middle)}) since step "
        f"{onset}, "
        f"and the loss stays at {figure(second)}.",
        value=middle,
        threshold=-backwards,
        evidence=(
            Evidence("run.grad_cosine", ("run",), threshold=-backwards),
            Evidence("run.loss", ("run",)),
        ),
        facts=facts if rate is None else {**facts, "lr": rate},
    )


def _run(rng: np.random.Generator, cosine: float, floor: float, speed: float = 40.0) -> Run:
    steps = np.arange(450)
    loss = (floor + (2.0 - floor) * np.exp(-steps / speed)) * (1 + 0.05 * np.cos(np.pi * steps))
    noise = 0.05 * rng.standard_normal(450)
    values = np.where(steps < 80, 0.3, cosine) + noise
    return run_of({"run.loss": loss, "run.grad_cosine": np.clip(values, -1, 1)})


@oscillating_plateau.fires_on
def _bounces_between_the_walls(rng: np.random.Generator) -> Run:
    return _run(rng, cosine=-0.9, floor=0.8)


@oscillating_plateau.fires_on
def _alternating_sources(rng: np.random.Generator) -> Run:
    return _run(rng, cosine=-0.5, floor=1.4)


@oscillating_plateau.quiet_on
def _falls_at_the_edge(rng: np.random.Generator) -> Run:
    return _run(rng, cosine=-0.99, floor=0.0, speed=200.0)


@oscillating_plateau.quiet_on
def _converged(rng: np.random.Generator) -> Run:
    return _run(rng, cosine=-0.9, floor=0.003)


@oscillating_plateau.quiet_on
def _flat_by_noise(rng: np.random.Generator) -> Run:
    return _run(rng, cosine=0.02, floor=0.8)
