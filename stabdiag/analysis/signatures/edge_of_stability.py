"""The curvature has reached, or passed, what the optimizer is stable at."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.episodes import longest_stretch
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.history import History, history
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.analysis.robust import trailing_median
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

LONG = 100
"""Steps for which the loss may fall on before the edge is to blame: what it bore for longer is something
else's doing. Without momentum gradients turn back and forth in health."""

TURNS = 10
"""Gradients in a row of which the median has to point backwards."""


@signature(
    "edge-of-stability",
    title="The curvature has reached what the optimizer is stable at",
    needs=("run.loss",),
    explains=("oscillating-plateau", "loss-spike", "loss-divergence", "loss-plateau"),
    causes=("learning-rate-too-high", "missing-warmup", "stale-second-moment", "batch-too-small"),
)
def edge_of_stability(
    run: Run, *, edge: float = 0.8, beyond: float = 1.3, backwards: float = 0.5
) -> Iterator[Finding]:
    """What it means: along the sharpest direction each step overshoots by as much as it corrects. Training
    with all data in one batch comes here by itself and stays, with the loss falling; beyond it the loss
    rises.

    How it is detected: the largest eigenvalue of the Hessian, as the optimizer scales it, over the one at
    which it is stable on a quadratic loss (2/η for gradient descent, 2(1+β)/η with momentum, 38/η for Adam
    at β1 0.9), is above `edge`: info. Or, where no curvature below that was measured, the median cosine of
    ten gradients in a row has come to lie below -`backwards`: info. A warning where the ratio was above
    `beyond` at two measurements in a row, or gradients turned backwards, while the level of the loss rose
    beyond its noise; critical where the run ends worse than it had been. Calibrated on tanh networks
    trained by full-batch gradient descent (0.998 to 1.02 for hundreds of steps, with the loss falling in
    all), momentum and Adam (0.94 to 1.03), and on mini-batch runs, which stay below: no warning in 72
    healthy runs of 35,000 steps.

    Look-alikes: the edge itself is normal. Curvature rises as the learning rate decays; only its product
    with the rate counts. Of small batches the noise keeps the curvature below the edge, and the measured
    one is that of the batch. Alternating data turn the gradient around as well (oscillating-plateau).

    Fixes: half the learning rate, a longer warm-up, a larger batch, a second moment that follows faster.

    Reference: Cohen et al. 2021, 2022 (arXiv 2103.00065, 2207.14484); Bai et al. 2025 (arXiv 2506.04805).

    Facts: sharpness_ratio or grad_cosine, lr, loss_rise (in deviations), harmed.
    """
    curve = loss_curve(run)
    ratio = history(run, "curvature.sharpness_ratio").finite()
    cosine = history(run, "run.grad_cosine").finite()
    if len(ratio) < 2 and len(cosine) < TURNS:
        raise NotEvaluable("neither curvature nor gradients in a row were recorded often enough")
    if len(ratio) >= 2:
        first, length = longest_stretch(ratio.values > beyond)
        if length >= 2:
            yield _finding(run, curve, ratio, (first, first + length - 1), "sharpness_ratio", beyond)
            return
        near = np.flatnonzero(ratio.values > edge)
        if len(near):
            yield _finding(run, curve, ratio, (int(near[0]), int(near[-1])), "sharpness_ratio", beyond)
            return
    if len(cosine) >= TURNS and not (len(ratio) and float(ratio.values.max()) < edge):
        first, length = longest_stretch(trailing_median(cosine.values, TURNS)[TURNS - 1 :] < -backwards)
        if length and first:  # curvature takes steps to rise to the edge
            yield _finding(run, curve, cosine, (first, first + length + TURNS - 2), "grad_cosine", -backwards)


def _finding(
    run: Run, curve: LossCurve, seen: History, part: tuple[int, int], what: str, threshold: float
) -> Finding:
    first, last = int(seen.steps[part[0]]), int(seen.steps[part[1]])
    values = seen.values[part[0] : part[1] + 1]
    began = _lowest(curve, first, last)
    curved = what == "sharpness_ratio"
    peak = int(np.argmax(values if curved else -values))
    value, rise = float(values[peak]), _rise(curve, first, last)
    over = not curved or float(np.sort(values)[-2:].min()) > threshold
    severity = Severity.info
    if over and rise > 8.0 and not curve.several and began - first <= LONG:
        severity = Severity.critical if curve.harmed else Severity.warning
    onset = began if severity else first
    series = "curvature.sharpness_ratio" if curved else "run.grad_cosine"
    does = "rises meanwhile" if severity else "does not suffer"
    words = (
        f"The curvature reached {figure(value)} times what the optimizer is stable at"
        if curved
        else f"Gradients in a row point against each other (cosine {figure(value)})"
    )
    facts = {what: value, "loss_rise": rise, "harmed": float(curve.harmed)}
    rate = schedule(run).at(first)
    return Finding(
        severity=severity,
        confidence=0.85 if curved else 0.7,
        sites=("run",),
        onset_step=onset,
        peak_step=max(int(seen.steps[part[0] + peak]), onset),
        last_step=last,
        message=f"{words}, from step {first} on; the loss {does}.",
        value=value,
        threshold=threshold,
        evidence=(
            Evidence(series, ("run",), threshold=1.0 if curved else threshold),
            Evidence("run.loss", ("run",)),
        ),
        facts=facts if rate is None else {**facts, "lr": rate},
    )


def _lowest(curve: LossCurve, first: int, last: int) -> int:
    """The step from `first` on at which the loss was at its best: while it fell, the edge did no harm."""
    inside = np.flatnonzero((curve.steps >= first) & (curve.steps <= last) & np.isfinite(curve.level))
    if not len(inside):
        return first
    return int(curve.steps[inside[np.argmin(curve.level[inside])]])


def _rise(curve: LossCurve, first: int, last: int) -> float:
    """By how many standard errors the level of the loss at `last` and after lies above its lowest between.
    Where it is not finite there, that of the values before: no instability makes a NaN out of quiet."""
    inside = (curve.steps >= first) & (curve.steps <= last + curve.window)
    level = curve.level[inside]
    values = curve.values[inside]
    if not np.isfinite(level).any() or not np.isfinite(values).any():
        return 0.0
    error = max(curve.noise, 1e-4 * abs(curve.start)) / float(np.sqrt(curve.window))
    if np.isfinite(values[-1]):
        at_last = float(level[np.isfinite(level)][-1])
    else:
        at_last = float(np.median(values[np.isfinite(values)][-3:]))
    height = at_last - float(np.nanmin(level))
    return height / error if height > 0.05 * max(curve.progress, 0.0) else 0.0


def _run(rng: np.random.Generator, ratio: np.ndarray, climbs: float) -> Run:
    loss = 0.3 + 0.5 * np.exp(-np.arange(500) / 60) + 0.005 * rng.standard_normal(500)
    loss[250:] += climbs * np.arange(250)
    series = {"run.loss": loss, "curvature.sharpness_ratio": ratio * np.exp(0.02 * rng.standard_normal(10))}
    return run_of(series, sites={"curvature": ["run"]}, steps={"curvature": np.arange(10) * 50})


@edge_of_stability.fires_on
def _pushed_beyond(rng: np.random.Generator) -> Run:
    return _run(rng, np.linspace(0.3, 2.4, 10), climbs=2e-3)


@edge_of_stability.fires_on
def _gradients_turn_around_and_the_loss_rises(rng: np.random.Generator) -> Run:
    loss = 0.3 + 0.5 * np.exp(-np.arange(500) / 60) + 0.005 * rng.standard_normal(500)
    loss[250:] += 2e-3 * np.arange(250)
    cosine = np.where(np.arange(500) < 240, 0.5, -0.8) + 0.1 * rng.standard_normal(500)
    return run_of({"run.loss": loss, "run.grad_cosine": np.clip(cosine, -1, 1)})


@edge_of_stability.quiet_on
def _rests_at_the_edge(rng: np.random.Generator) -> Run:
    return _run(rng, np.minimum(1.0, np.linspace(0.2, 3.0, 10)), climbs=0.0)


@edge_of_stability.quiet_on
def _one_sharp_batch(rng: np.random.Generator) -> Run:
    return _run(rng, np.where(np.arange(10) == 6, 2.0, 0.4), climbs=0.0)


@edge_of_stability.quiet_on
def _noise_of_small_batches(rng: np.random.Generator) -> Run:
    loss = 2.0 + 2.8 * np.exp(-np.arange(400) / 60) + 0.05 * rng.standard_normal(400)
    return run_of({"run.loss": loss, "run.grad_cosine": 0.05 + 0.1 * rng.standard_normal(400)})
