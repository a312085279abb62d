"""The gradient of a batch is nearly all noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.history import History, history
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

LEAST = 16
FEWER = 4
"""Cosines whose mean says how much of the gradient is signal; fewer where the loss tells the harm."""


@signature(
    "noise-dominated",
    title="The gradient of a batch is nearly all noise",
    needs=("run.grad_cosine", "run.loss"),
    explains=("loss-divergence", "loss-plateau"),
    causes=("batch-too-small", "learning-rate-too-high"),
)
def noise_dominated(run: Run, *, noise: float = 20.0, shrunk: float = 2.0) -> Iterator[Finding]:
    """What it means: the batch is far below the size at which more data a step would pay, so that a step is
    a random walk with a slight drift. That is no fault by itself, and comes about as the loss falls; it is
    one where the batch was made smaller and the loss rose for it.

    How it is detected: gradients of two independent batches share the signal and not the noise, so that the
    mean cosine c of gradients in a row gives noise over signal, (1 - c) / c, which is the noise scale over
    the batch size: McCandlish's B_simple / B. Over the last half of the run, at 16 places or more, it is
    above `noise`, by a standard error: info. A warning where the batch had shrunk `shrunk`-fold, with half of
    that noise, and the level of the loss is above what it was before by more than noise; or with a third of
    that noise, and at four places, where its mean is, by 4 standard errors and 2 % of the progress, or where
    it fell before the cut and no more since. The estimator is exact for independent batches and a gradient
    that turns slowly; it gives 19 where c is 0.05. Calibrated on batches of 1 in small transformers and
    classifiers, and on batches cut from 16 to 1; of 60 healthy runs it told some, at the end, as info.

    Look-alikes: shuffled targets leave nothing but noise as well (context-blind-plateau, loss-plateau).
    Cosines below zero are overshooting. With each batch seen twice in a row the cosine is no measure.

    Fixes: a batch two to four times as large, by accumulation; or, at the end of a run, a lower rate.

    Reference: McCandlish et al. 2018 (An empirical model of large-batch training, arXiv 1812.06162).

    Facts: noise_to_signal (where the cosine stands out from 0), grad_cosine (mean), samples and
    samples_before, lr.
    """
    curve = loss_curve(run, least=60)
    cosine = history(run, "run.grad_cosine").finite()
    tail = cosine.within(int(curve.steps[len(curve.values) // 2]), run.steps)
    batch = _samples(run)
    cut = _cut(batch, shrunk)
    # A cut that the loss confirms needs less noise to be told, and fewer places that tell it.
    rose = cut is not None and (_mean_rose(curve, cut[0]) or _fell_no_more(curve, cut[0]))
    if len(tail) < (FEWER if rose else LEAST):
        raise NotEvaluable(f"the cosine of gradients in a row is known at only {len(tail)} late steps")
    mean = float(np.mean(tail.values))
    error = float(np.std(tail.values)) / float(np.sqrt(len(tail)))
    limit = 1.0 / (1.0 + noise / (3 if rose else 2 if cut else 1))
    overshoots = mean < -max(2 * error, 0.05) and not rose
    if mean + error > limit or overshoots or curve.several:
        return
    start = int(tail.steps[0]) if cut is None else cut[0]
    worse = rose or (cut is not None and _level_rose(curve, cut[0]))
    resolved, least = mean > error, 1.0 / limit - 1.0
    times = figure(1.0 / mean - 1.0) if resolved else f"more than {figure(least)}"
    shrank = f" since the batch shrank from {figure(cut[1])} to {figure(cut[2])}" if cut else ""
    facts = {"grad_cosine": mean, **({"noise_to_signal": 1.0 / mean - 1.0} if resolved else {})}
    if cut:
        facts |= {"samples_before": cut[1], "samples": cut[2]}
    elif len(batch):
        facts["samples"] = float(np.median(batch.values))
    rate = schedule(run).at(start)
    yield Finding(
        severity=Severity.warning if worse else Severity.info,
        confidence=0.8 if worse else 0.6,
        sites=("run",),
        onset_step=start,
        peak_step=start,
        last_step=int(tail.steps[-1]),
        message=f"The noise of a batch is {times} times the gradient itself{shrank}"
        + (", and the loss is the worse for it." if worse else "."),
        value=facts.get("noise_to_signal", least),
        threshold=least,
        evidence=(
            Evidence("run.grad_cosine", ("run",), threshold=limit),
            Evidence("run.loss", ("run",)),
        ),
        facts=facts if rate is None else {**facts, "lr": rate},
    )


def _level_rose(curve: LossCurve, step: int) -> bool:
    """Whether the last level lies above the one at `step` by more than noise and 2 % of the progress."""
    at = int(np.searchsorted(curve.steps, step))
    before, now = curve.level[max(at - 1, 0)], curve.end
    calm = np.abs(np.diff(curve.values[max(at - 50, 0) : at]))
    margin = 3.0 * float(np.median(calm)) if len(calm) else curve.margin
    return bool(now - before > max(margin, 0.02 * max(curve.start - before, 0.0)))


def _mean_rose(curve: LossCurve, step: int) -> bool:
    """Whether the mean of all losses from `step` on lies above that of the 50 before by 4 standard errors and
    2 % of the progress: the losses of single samples are skewed, and their median says little."""
    at = int(np.searchsorted(curve.steps, step))
    before, after = curve.values[max(at - 50, 0) : at], curve.values[at:]
    if len(before) < 20 or len(after) < 20 or not np.isfinite(after).all():
        return False
    rise = float(np.mean(after) - np.mean(before))
    error = float(np.sqrt(np.var(after) / len(after) + np.var(before) / len(before)))
    return rise > max(4.0 * error, 0.02 * max(curve.start - float(np.mean(before)), 0.0))


def _fell_no_more(curve: LossCurve, step: int) -> bool:
    """Whether the losses fell over the 50 before `step`, by 4 standard errors of their line, and since then,
    in the mean of the last half, by less than a quarter of that: no curve that levels off does so at once."""
    at = int(np.searchsorted(curve.steps, step))
    before, after = curve.values[max(at - 50, 0) : at], curve.values[at:]
    if len(before) < 50 or len(after) < 50 or not np.isfinite(before).all():
        return False
    (slope, now), variances = np.polyfit(np.arange(-len(before), 0), before, 1, cov=True)
    late = float(np.mean(after[len(after) // 2 :]))
    fall = -slope * len(before)
    return bool(-slope > 4.0 * np.sqrt(variances[0, 0]) and now - late < fall / 4)


def _samples(run: Run) -> History:
    """Rows of the batch of each step."""
    samples = history(run, "run.samples").finite()
    return samples if len(samples) and samples.values.max() > 0 else history(run, "run.nothing")


def _cut(batch: History, shrunk: float) -> tuple[int, float, float] | None:
    """The step at which the batch shrank for good, and its size before and after."""
    if len(batch) < 20:
        return None
    end = float(np.median(batch.values[-10:]))
    larger = np.flatnonzero(batch.values >= shrunk * end)
    if end <= 0 or len(larger) < 10 or larger[-1] + 10 > len(batch) - 1:
        return None
    at = int(larger[-1]) + 1
    return int(batch.steps[at]), float(np.median(batch.values[max(at - 50, 0) : at])), end


def _run(rng: np.random.Generator, signal: float, batch: np.ndarray, rise: float, known: int = 600) -> Run:
    steps = np.arange(600)
    calm = batch >= 16
    loss = 1.0 + 2.0 * np.exp(-steps / 60) + np.where(calm, 0.03, 0.1) * rng.standard_normal(600)
    loss[~calm] += rise
    cosine = np.where(calm, 0.2, signal) + 0.05 * rng.standard_normal(600)
    cosine[np.arange(600) % (600 // known) > 0] = np.nan
    return run_of({"run.loss": loss, "run.grad_cosine": cosine, "run.samples": batch})


@noise_dominated.fires_on
def _batch_cut_without_the_rate(rng: np.random.Generator) -> Run:
    return _run(rng, 0.01, np.where(np.arange(600) < 300, 64.0, 1.0), rise=0.6)


@noise_dominated.fires_on
def _batch_cut_of_which_few_places_tell(rng: np.random.Generator) -> Run:
    return _run(rng, 0.01, np.where(np.arange(600) < 200, 64.0, 1.0), rise=0.6, known=30)


@noise_dominated.quiet_on
def _small_batch_and_a_good_loss(rng: np.random.Generator) -> Run:
    return _run(rng, 0.01, np.full(600, 4.0), rise=0.0)


@noise_dominated.quiet_on
def _batch_cut_with_signal_left(rng: np.random.Generator) -> Run:
    return _run(rng, 0.15, np.where(np.arange(600) < 300, 64.0, 8.0), rise=0.6)
