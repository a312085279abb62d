"""The model answers as if it did not see its input."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import evenly
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.history import History, history
from stabdiag.analysis.losscurve import several_optimizers
from stabdiag.analysis.robust import spread, trailing_median
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

LEAST = 60
"""Recorded losses below which a plateau is none."""


@signature(
    "context-blind-plateau",
    title="The loss is that of an answer which ignores the input",
    needs=("run.loss", "targets.loss", "targets.constant"),
    explains=("loss-plateau", "update-ratio-low", "oscillating-plateau"),
    causes=(
        "wrong-targets",
        "detached-graph",
        "parameters-not-optimized",
        "learning-rate-too-high",
        "learning-rate-too-low",
        "saturating-activation",
        "dying-relu",
        "wrong-loss",
        "schedule-bug",
    ),
)
def context_blind_plateau(
    run: Run, *, close: float = 0.03, above: float = 0.25, horizon: float = 0.25, apart: float = 0.02
) -> Iterator[Finding]:
    """What it means: the loss has come to rest where a constant answer lies: the frequencies of the labels,
    the mean of the values. Nothing of the input is used. Runs that collapsed end here, whatever did it.

    How it is detected: what the best constant answer costs is measured on the targets themselves: the
    entropy of their frequencies, or their variance. Over the last `horizon` of the run, and for 60 recorded
    steps at least, the loss lies between `close` of that below it and `above` of it above, and its two halves
    differ by no more than noise explains. Not while the learning rate rises, and not where what is trained on
    has moved apart from that loss by more than `apart` since the first step: then the loss is one term of
    several, which are traded for one another, and the best that it could do alone is no reference.

    Calibrated on permuted targets in transformers, MLPs and regression (gap within 1 %) and collapsed
    transformers; 0 alarms in 59,700 steps of 161 healthy runs, of which the language models pass that level
    within 40 steps. A balance loss of experts moves the whole 0.6 % apart, the divergence of a variational
    autoencoder that uses its latents 5 to 21 %.

    Look-alikes: language models rest near it before they learn to use the context. Values that cannot be
    predicted look the same, and so do the two sides of a GAN, which are left out. A variational autoencoder
    passes the mean picture slowly while it pays for its first latents.

    Fixes: train on one batch of 8 alone: if its loss does not go to zero, look for the fault in targets, loss
    or graph. Where gradients and weights are healthy, the targets do not belong to the inputs.

    Reference: Karpathy, A recipe for training neural networks, 2019 (input-independent baseline).

    Facts: loss, constant, gap (share of the constant), seen (targets), agreement where known.
    """
    table = run.table("targets.loss")
    if (moved_apart := _apart(run)) > apart:
        raise NotEvaluable(
            f"the loss is one term of several: the whole moved {moved_apart:.0%} apart from it"
        )
    curve = _comparable(run)
    steps, losses = curve.steps, curve.values
    constants = run.table("targets.constant").first() if table.sites else np.empty(0)
    known = constants[np.isfinite(constants)]
    if len(losses) < 2 * LEAST or not len(known):
        raise NotEvaluable(f"the losses of only {len(losses)} steps are known, {2 * LEAST} are needed")
    constant = float(known[-1])
    begin = min(int(np.searchsorted(steps, steps[-1] * (1 - horizon))), len(losses) - LEAST)
    tail = losses[begin:]
    half = len(tail) // 2
    end, noise = float(np.median(tail)), spread(tail)
    moved = abs(float(np.median(tail[:half]) - np.median(tail[half:])))
    rates = schedule(run).rate.within(int(steps[begin]), int(steps[-1])).values
    warming = len(rates) > 1 and rates[-1] > 1.01 * rates[0]
    still = moved <= max(6.0 * noise / float(np.sqrt(half)), 0.005 * abs(constant))
    near = (1 - close) * constant <= end <= (1 + above) * constant
    if constant <= 0 or not near or not still or warming or several_optimizers(run):
        return
    at = evenly(len(losses), 2000)
    below = np.flatnonzero(np.abs(trailing_median(losses[at], 9) - end) > max(2 * noise, close * constant))
    onset = min(int(at[min(below[-1] + 1, len(at) - 1)]) if len(below) else 0, begin)
    facts = {"loss": end, "constant": constant, "gap": end / constant - 1}
    facts |= {
        name: float(value)
        for name in ("seen", "agreement")
        if (value := _last(run, f"targets.{name}")) is not None
    }
    what = "frequencies of the labels" if table.names[0] == "cross-entropy" else "mean of the targets"
    yield Finding(
        severity=Severity.warning,
        confidence=0.9,
        sites=("run",),
        onset_step=int(steps[onset]),
        peak_step=int(steps[-1]),
        last_step=int(steps[-1]),
        message=f"The loss has stayed at {figure(end)} since step {steps[onset]}; always answering with the "
        f"{what} costs {figure(constant)}.",
        value=end,
        threshold=(1 - close) * constant,
        evidence=(
            Evidence("targets.loss", table.names[:1], threshold=constant),
            Evidence("run.loss", ("run",)),
        ),
        facts=facts,
    )


def _comparable(run: Run) -> History:
    """The loss in the unit of the constant answer: that of the whole run, which is known at every step,
    where it is the same number as that of torch's function, else that of the function."""
    own, whole = history(run, "targets.loss").finite(), history(run, "run.loss").finite()
    both = np.isin(own.steps, whole.steps)
    apart = np.abs(own.values[both] - whole.values[np.isin(whole.steps, own.steps)])
    if len(apart) and float(np.median(apart)) < 0.01 * float(np.median(np.abs(own.values))):
        return whole
    return own


def _apart(run: Run) -> float:
    """By what share the loss of the whole, over that of torch's function, has changed since the first step;
    0 where too little is known."""
    own, whole = history(run, "targets.loss").finite(), history(run, "run.loss").finite()
    _, at, there = np.intersect1d(own.steps, whole.steps, return_indices=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = whole.values[there] / own.values[at]
    ratios = ratios[np.isfinite(ratios) & (ratios != 0)]
    if len(ratios) < LEAST:
        return 0.0
    return abs(float(np.median(ratios[-len(ratios) // 4 :]) / ratios[0]) - 1)


def _last(run: Run, series: str) -> float | None:
    if series not in run:
        return None
    values = run.table(series).first()
    values = values[np.isfinite(values)]
    return float(values[-1]) if len(values) else None


def _run(rng: np.random.Generator, loss: np.ndarray, entropy: float = 4.34) -> Run:
    count = len(loss)
    series = {
        "run.loss": loss,
        "targets.loss": loss,
        "targets.constant": entropy + 0.001 * rng.standard_normal(count),
        "targets.seen": 768.0 * np.arange(1, count + 1),
        "targets.agreement": np.full(count, 0.03),
    }
    return run_of(series, sites={"targets": [Site("targets", "cross-entropy")]})


@context_blind_plateau.fires_on
def _ignores_the_context(rng: np.random.Generator) -> Run:
    fall = 0.5 * np.exp(-np.arange(300) / 10)
    return _run(rng, 4.33 + fall + 0.03 * rng.standard_normal(300))


@context_blind_plateau.quiet_on
def _passes_by(rng: np.random.Generator) -> Run:
    return _run(rng, 3.1 + 1.7 * np.exp(-np.arange(300) / 40) + 0.03 * rng.standard_normal(300))


@context_blind_plateau.quiet_on
def _a_term_that_another_one_weighs_on(rng: np.random.Generator) -> Run:
    error = 0.26 + 0.45 * np.exp(-np.arange(300) / 20) + 0.005 * rng.standard_normal(300)
    series = {
        "run.loss": 256 * error + 4 * (1 - np.exp(-np.arange(300) / 40)),
        "targets.loss": error,
        "targets.constant": 0.26 + 0.001 * rng.standard_normal(300),
    }
    return run_of(series, sites={"targets": [Site("targets", "binary-cross-entropy")]})


@context_blind_plateau.quiet_on
def _slowly_under_way(rng: np.random.Generator) -> Run:
    return _run(rng, 4.5 - 0.001 * np.arange(300) + 0.01 * rng.standard_normal(300))
