"""Steps are too small to learn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import telling
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.analysis.robust import median
from stabdiag.analysis.step_size import schedule
from stabdiag.analysis.updates import Updates, updates
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

HEALTHY = 1e-3
"""The rule of thumb for a median update ratio."""


@signature(
    "update-ratio-low",
    title="Steps are too small to learn",
    needs=("update.ratio", "run.loss"),
    explains=("loss-plateau",),
    causes=(
        "learning-rate-too-low",
        "schedule-bug",
        "saturating-activation",
        "weight-decay-too-high",
        "stale-second-moment",
        "parameters-not-optimized",
    ),
)
def update_ratio_low(
    run: Run, *, low: float = 1e-5, starved: float = 0.005, budget: float = 0.2, decayed: float = 0.01
) -> Iterator[Finding]:
    """What it means: the weights hardly move, and the rest of the run is spent for nothing.

    How it is detected: the median over the weight matrices of norm(change of a step) / norm(weight) is
    below `low` for at least `budget` of the run up to its end, while the loss has made no progress at
    all. Or it is below `starved` of its own median in the first part, for `budget` of the run, because
    the learning rate has fallen below `decayed` of its peak.

    Look-alikes: the tail of a cosine schedule is meant to be small, and short. Fine-tuning takes steps
    of 1e-6 and learns. A converged model under SGD has small gradients. Frozen tensors and matrices
    that began at zero are left out; steps that a gradient scaler withheld do not count.

    Fixes: raise the learning rate by the factor that is missing; give the schedule the true number of
    steps (a scheduler stepped once a micro-batch runs ahead); keep a floor of 10 % of the peak.

    Reference: Karpathy, A recipe for training neural networks, 2019.

    Facts: update_ratio, healthy_ratio (the run's own, else 1e-3), lr, lr_peak, budget_left (share),
    by_construction (1 where the learning rate was zero from the first step to the last).
    """
    taken = updates(run)
    curve = loss_curve(run)
    if len(taken.steps) < 10 or run.steps < 50:
        raise NotEvaluable(f"only {run.steps} steps were recorded")
    if not taken.names or curve.several:
        return
    middle = np.nan_to_num(taken.middle, nan=np.inf)
    early = float(np.median(middle[: max(len(middle) // 4, 5)]))
    rates = schedule(run).rate
    by_schedule = np.zeros(len(middle), dtype=bool)
    if len(rates):
        now = rates.values[np.clip(np.searchsorted(rates.steps, taken.steps), 0, len(rates) - 1)]
        by_schedule = (now < decayed * rates.values.max()) & (middle < starved * early)
        by_schedule[: int(np.argmax(now)) + 1] = False  # still warming up
    nothing_learned = not curve.made_progress and run.steps >= 100
    for judged, healthy, why in (
        (by_schedule, early, "the learning rate has run out"),
        ((middle < low) & nothing_learned, HEALTHY, "the loss has not moved"),
    ):
        quiet = np.flatnonzero(~judged)
        start = int(quiet[-1]) + 1 if quiet.size else 0
        left = 1.0 - taken.steps[min(start, len(middle) - 1)] / run.steps
        if start < len(middle) - 3 and left >= budget:
            yield _finding(run, taken, start, healthy, float(left), why)
            return


def _finding(run: Run, taken: Updates, start: int, healthy: float, left: float, why: str) -> Finding:
    value = float(np.median(taken.middle[start:]))
    step = int(taken.steps[start])
    rates = schedule(run)
    facts = {"update_ratio": value, "healthy_ratio": healthy, "budget_left": left, "lr_peak": rates.peak}
    rate = rates.at(int(taken.steps[-1]))
    if len(rates.rate) and not rates.rate.values.any():
        facts["by_construction"] = 1.0  # no step was ever to be taken
    sites = telling(taken.names, -median(taken.ratio[start:], axis=0))
    return Finding(
        severity=Severity.warning,
        confidence=0.8,
        sites=sites,
        onset_step=step,
        peak_step=int(taken.steps[start + int(np.nanargmin(taken.middle[start:]))]),
        last_step=int(taken.steps[-1]),
        message=f"A step changes the weights by only {figure(value)} of their size since step {step}, "
        f"{left:.0%} of the run: {why}.",
        value=value,
        threshold=healthy / 100,
        evidence=(
            Evidence("update.ratio", sites, threshold=healthy / 100, log=True),
            *([Evidence("run.lr", ("run",))] if "run.lr" in run else []),
        ),
        facts=facts if rate is None else {**facts, "lr": rate},
    )


def _run(rng: np.random.Generator, rates: np.ndarray, loss: np.ndarray, scale: float = 1.0) -> Run:
    steps = np.arange(0, len(rates), 10)
    ratio = scale * rates[steps, None] * np.exp(0.2 * rng.standard_normal((len(steps), 5)))
    series = {"update.ratio": ratio, "run.lr": rates, "run.loss": loss}
    return run_of(series, sites={"update": weights("update", 5)}, steps={"update": steps})


def _learns(rng: np.random.Generator) -> np.ndarray:
    return 2.0 + 2.8 * np.exp(-np.arange(400) / 60) + 0.05 * rng.standard_normal(400)


@update_ratio_low.fires_on
def _schedule_ends_too_early(rng: np.random.Generator) -> Run:
    return _run(rng, 1e-2 * np.maximum(1 - np.arange(400) / 120, 1e-3), _learns(rng))


@update_ratio_low.fires_on
def _learning_rate_of_nothing(rng: np.random.Generator) -> Run:
    return _run(rng, np.full(400, 1e-7), 2.3 + 0.01 * rng.standard_normal(400))


@update_ratio_low.quiet_on
def _cosine_tail(rng: np.random.Generator) -> Run:
    return _run(rng, 1e-2 * (1 + np.cos(np.pi * np.arange(400) / 400)) / 2, _learns(rng))


@update_ratio_low.quiet_on
def _fine_tuning(rng: np.random.Generator) -> Run:
    return _run(rng, np.full(400, 5e-6), 1.0 - 0.4 * np.arange(400) / 400 + 0.02 * rng.standard_normal(400))


@update_ratio_low.quiet_on
def _rests_at_the_end(rng: np.random.Generator) -> Run:
    return _run(rng, np.where(np.arange(400) < 350, 1e-2, 1e-5), _learns(rng))
