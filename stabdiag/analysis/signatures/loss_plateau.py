"""The loss makes no progress although a better one is possible."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.guessing import constant_answer
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.analysis.robust import trailing_median
from stabdiag.analysis.step_size import schedule
from stabdiag.core.event import Event
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


@signature(
    "loss-plateau",
    title="The loss makes no progress",
    needs=("run.loss",),
    causes=(
        "wrong-targets",
        "detached-graph",
        "parameters-not-optimized",
        "learning-rate-too-low",
        "learning-rate-too-high",
        "saturating-activation",
        "dying-relu",
        "wrong-loss",
        "schedule-bug",
    ),
)
def loss_plateau(run: Run, *, trivial: float = 0.03, lost: float = 0.25) -> Iterator[Finding]:
    """What it means: the run has stopped learning where it should not: at the loss of a predictor that
    ignores its input, or above a level that it had reached before.

    How it is detected: over the last third of the run the loss moves by no more than noise explains, or by
    less than 1 % of the first loss, and either its level is within `trivial` of what a constant answer
    costs, or above it; or it lies above the best level of the run by `lost` of the progress. A constant
    answer costs the entropy of the labels' frequencies where those were recorded for the loss that is
    trained on, else ln(classes). At least 100 steps, with the learning rate no longer rising. A loss that
    is the same number at every step depends on nothing: a warning. So is a cross-entropy whose logits are
    already probabilities, at every record at most 1 and of mean 1/classes: it cannot fall below ln(classes
    - 1 + e) - 1, however well the model does: of 225 runs with logits the mean is elsewhere off by half of
    1/classes and more. One that never moved, where no trivial level is known, is info.

    Look-alikes: a converged run fell well and is then flat: that is its end, not a fault. Language
    models rest for a while before they learn to use the context. Pre-trained models start far below
    ln(classes) and may hardly move. The losses of several optimizers need not fall.

    Fixes: train on one batch of 8 alone: if its loss does not go to zero, look for the fault in the
    targets, the loss or the graph; otherwise in the learning rate or the depth.

    Reference: Karpathy, A recipe for training neural networks, 2019 (input-independent baseline).

    Facts: loss_start, loss_best, loss_end, loss_trivial and classes where known, lr; constant (1 where the
    loss is the same at every step); probabilities (1 where the logits are) and bound.
    """
    curve = loss_curve(run, least=100)
    if (curve.values == curve.values[0]).all() and np.isfinite(curve.values[0]):
        yield _same_number(curve)
        return
    if (classes := _squashed(run)) is not None:
        yield _bounded(curve, classes)
        return
    third = len(curve.values) * 2 // 3
    tail = curve.values[third:][np.isfinite(curve.values[third:])]
    rates = schedule(run).rate.within(int(curve.steps[third]), int(curve.steps[-1])).values
    warming = len(rates) > 1 and rates[-1] > 1.01 * rates[0]
    if curve.several or curve.lost_from is not None or warming or len(tail) < 30:
        return
    half = len(tail) // 2
    fell = float(np.median(tail[:half]) - np.median(tail[half:]))
    if abs(fell) > max(3.0 * curve.noise / math.sqrt(half), 0.01 * abs(curve.start)):
        return
    end = float(np.median(tail))
    guess, answer = constant_answer(run)
    facts = {"loss_start": curve.start, "loss_best": curve.best, "loss_end": end, "noise": curve.noise}
    if end > (1.0 - trivial) * guess:
        facts |= {"loss_trivial": guess}
        severity, threshold = Severity.warning, (1.0 - trivial) * guess
        words = f"at {figure(end)}, no better than {answer} ({figure(guess)})"
    elif end - curve.best > max(curve.margin, lost * curve.progress) and curve.made_progress:
        severity, threshold = Severity.warning, curve.best + lost * curve.progress
        words = f"at {figure(end)}, although it had been {figure(curve.best)}"
    elif not curve.made_progress and math.isnan(guess):
        severity, threshold = Severity.info, curve.start
        words = f"at {figure(end)}, about where it started ({figure(curve.start)})"
    else:
        return
    # The plateau began where the level last was outside of what it is at the end.
    level = trailing_median(curve.values, curve.window)
    outside = np.flatnonzero(np.abs(level - end) > max(2.0 * curve.noise, 0.01 * abs(end)))
    onset = min(int(outside[-1]) + 1 if len(outside) else 0, third)
    rate = schedule(run).at(int(curve.steps[onset]))
    yield Finding(
        severity=severity,
        confidence=0.8 if severity == Severity.warning else 0.5,
        sites=("run",),
        onset_step=int(curve.steps[onset]),
        peak_step=int(curve.steps[-1]),
        last_step=int(curve.steps[-1]),
        message=f"The loss has stayed {words} since step {curve.steps[onset]}.",
        value=end,
        threshold=threshold,
        evidence=(Evidence("run.loss", ("run",), threshold=threshold),),
        facts=facts if rate is None else {**facts, "lr": rate},
    )


def _same_number(curve: LossCurve) -> Finding:
    value, last = curve.end, int(curve.steps[-1])
    return Finding(
        severity=Severity.warning,
        confidence=0.95,
        sites=("run",),
        onset_step=int(curve.steps[0]),
        peak_step=last,
        last_step=last,
        message=f"The loss is exactly {figure(value)} at all {len(curve.values)} steps: it depends "
        "neither on the model nor on the data.",
        value=value,
        evidence=(Evidence("run.loss", ("run",)),),
        facts={"loss_start": value, "loss_best": value, "loss_end": value, "constant": 1.0},
    )


def _squashed(run: Run) -> int | None:
    """The number of classes, where the logits of the cross-entropy are themselves a softmax's."""
    classes = run.fact("loss", "classes")
    known = {"logits.mean", "logits.max"} <= set(run.series)
    if run.fact("loss", "function") != "cross-entropy" or not isinstance(classes, int) or not known:
        return None
    mean, largest = run.table("logits.mean").values, run.table("logits.max").values
    kept = np.isfinite(mean) & np.isfinite(largest)
    # Probabilities in 16 bits add up to 1 within a hundredth.
    one = (np.abs(classes * mean[kept] - 1.0) < 0.01) & (largest[kept] <= 1.0 + 1e-6)
    return classes if classes > 1 and len(one) >= 8 and one.all() else None


def _bounded(curve: LossCurve, classes: int) -> Finding:
    bound, end = math.log(classes - 1 + math.e) - 1.0, curve.end
    return Finding(
        severity=Severity.warning,
        confidence=0.95,
        sites=("run",),
        onset_step=int(curve.steps[0]),
        peak_step=int(curve.steps[-1]),
        last_step=int(curve.steps[-1]),
        message=f"The loss cannot fall below {figure(bound)}: its logits are probabilities, the output of a "
        f"softmax. It has come to {figure(end)}.",
        value=end,
        threshold=bound,
        evidence=(Evidence("run.loss", ("run",), threshold=bound), Evidence("logits.max")),
        facts={"loss_start": curve.start, "loss_best": curve.best, "loss_end": end, "bound": bound,
               "probabilities": 1.0, "classes": float(classes)},
    )  # fmt: skip


TEN = Event("loss", 0.0, data={"function": "cross-entropy", "classes": 10})


@loss_plateau.fires_on
def _guesses(rng: np.random.Generator) -> Run:
    return run_of({"run.loss": math.log(10) + 0.03 * rng.standard_normal(300)}, events=[TEN])


@loss_plateau.fires_on
def _never_regained(rng: np.random.Generator) -> Run:
    loss = 1.0 + 2.0 * np.exp(-np.arange(400) / 30) + 0.03 * rng.standard_normal(400)
    loss[180:] += 1.0
    return run_of({"run.loss": loss})


@loss_plateau.fires_on
def _no_better_than_the_frequencies(rng: np.random.Generator) -> Run:
    loss = 1.75 + 0.02 * rng.standard_normal(300)
    series = {"run.loss": loss, "targets.loss": loss, "targets.constant": np.full(300, 1.76)}
    return run_of(series, sites={"targets": [Site("targets", "cross-entropy")]}, events=[TEN])


@loss_plateau.fires_on
def _depends_on_nothing(rng: np.random.Generator) -> Run:
    return run_of({"run.loss": np.zeros(200)})


@loss_plateau.fires_on
def _takes_the_softmax_of_probabilities(rng: np.random.Generator) -> Run:
    loss = 1.5 + 0.8 * np.exp(-np.arange(300) / 60) + 0.02 * rng.standard_normal(300)
    largest = 0.9 + 0.1 * rng.random(300)
    series = {"run.loss": loss, "logits.mean": np.full(300, 0.1), "logits.max": largest}
    return run_of(series, sites={"logits": [Site("logits", "head")]}, events=[TEN])


@loss_plateau.quiet_on
def _small_logits_are_no_probabilities(rng: np.random.Generator) -> Run:
    loss = 1.5 + 0.8 * np.exp(-np.arange(300) / 60) + 0.02 * rng.standard_normal(300)
    mean, largest = 0.1 + 0.02 * rng.standard_normal(300), 0.9 + 0.1 * rng.random(300)
    series = {"run.loss": loss, "logits.mean": mean, "logits.max": largest}
    return run_of(series, sites={"logits": [Site("logits", "head")]}, events=[TEN])


@loss_plateau.quiet_on
def _converged(rng: np.random.Generator) -> Run:
    loss = 0.4 + 1.9 * np.exp(-np.arange(600) / 40) + 0.03 * rng.standard_normal(600)
    return run_of({"run.loss": loss}, events=[TEN])


@loss_plateau.quiet_on
def _a_sum_over_the_batch(rng: np.random.Generator) -> Run:
    mean = 0.4 + 1.9 * np.exp(-np.arange(600) / 40) + 0.03 * rng.standard_normal(600)
    series = {"run.loss": 64 * mean, "targets.loss": mean}
    return run_of(series, sites={"targets": [Site("targets", "cross-entropy")]}, events=[TEN])


@loss_plateau.quiet_on
def _too_short(rng: np.random.Generator) -> Run:
    return run_of({"run.loss": 2.2 - 0.002 * np.arange(120) + 0.03 * rng.standard_normal(120)}, events=[TEN])


@loss_plateau.quiet_on
def _still_rising(rng: np.random.Generator) -> Run:
    loss = 1.0 + 2.0 * np.exp(-np.arange(400) / 30) + 0.03 * rng.standard_normal(400)
    loss[320:] += 1.0
    return run_of({"run.loss": loss})
