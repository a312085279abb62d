"""The learning rate jumps, is zero or negative, or runs ahead of the steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.aftermath import aftermath
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.episodes import longest_stretch
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import harmed
from stabdiag.analysis.successors import continued
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run, RunInfo
from stabdiag.core.synthetic import run_of

STEEP = 5
"""Steps in which a linear warm-up is steep."""


@dataclass(frozen=True)
class Rates:
    """The learning rate of one parameter group: its site, `steps` and finite `values`, [n]."""

    site: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Break:
    """What is wrong: from which step to which, how much, in words."""

    rates: Rates
    first: int
    last: int
    before: float
    now: float
    severity: Severity
    words: str


@signature(
    "schedule-jump",
    title="The learning rate jumps, is zero or negative, or runs ahead of the steps",
    needs=("run.lr",),
    explains=(
        "lr-divergence",
        "lr-starvation",
        "warmup-end-instability",
        "edge-of-stability",
        "oscillating-plateau",
        "adam-stale-second-moment",
        "adam-correlated-update",
        "weight-norm-drift",
        "update-ratio-high",
        "update-ratio-low",
        "loss-spike",
        "loss-divergence",
        "loss-plateau",
        "nonfinite-origin",
        "attention-logit-growth",
        "exploding-activation",
        "exploding-gradient",
        "dead-units",
    ),
    causes=("schedule-bug",),
)
def schedule_jump(
    run: Run,
    *,
    jump: float = 1.5,
    territory: float = 3.0,
    fall: float = 50.0,
    zero: float = 0.02,
    level: float = 6.0,
) -> Iterator[Finding]:
    """What it means: the schedule does not do what it was meant to: it was reset, restored wrongly, stepped
    too often, or computed with the wrong sign.

    How it is detected: from the learning rate of each parameter group alone. It is negative (critical). Or
    it is zero for the share `zero` of the steps in a row, and three or more, after it had been positive. Or
    it rises `jump`-fold in one step, to where it had been before it decayed, or to `territory` times all
    that had been; or falls `fall`-fold at once with a tenth of the run to go. Or it ends, at its lowest, at
    1/k of the steps where k micro-batches make one: it is stepped once a micro-batch. A jump is a warning
    where the loss rises for three steps or more by 4 robust deviations and a twentieth of the progress, and
    critical where the run is worse for it in the end; else info. Beyond `territory`, a warning also where
    the median loss of the twenty steps after it is higher by `level` standard errors. A fall is told by
    what it costs. Calibrated on jumps by 2 to 100 and resets by 10 in small transformers, and on warm-ups,
    cosines, milestones, plateaus and restarts of 222 healthy runs: no alarm in 84,000 steps.

    Look-alikes: restarts of a cosine, cyclical rates and milestones by 10 are meant; two jumps or more to
    one level are told only where the run is harmed. A warm-up by epochs rises in steps, and never above
    `territory` times what was. A group that is frozen has rate zero from the first step on.

    Fixes: step the scheduler once an optimizer step over all steps that there are; restore its state with
    the optimizer's; go back to before a jump that did harm.

    Reference: PyTorch, torch.optim, how to adjust learning rate; Zeng et al. 2022 (GLM-130B, arXiv
    2210.02414).

    Facts: lr_before, lr, lr_peak, jumps, harmed.
    """
    groups = list(_groups(run))
    if not groups:
        raise NotEvaluable("the learning rate of fewer than 20 steps was recorded")
    for rates in groups:
        ups = _ups(rates, jump, territory)
        tried = (
            _negative(rates),
            _zero(rates, zero),
            _ahead(run, rates),
            _up(run, rates, ups, territory, level),
            _down(run, rates, fall),
        )
        found = [entry for entry in tried if entry is not None]
        if found:
            yield _finding(run, max(found, key=lambda entry: entry.severity), jump, len(ups))
            return


def _groups(run: Run) -> Iterator[Rates]:
    table = run.table("run.lr")
    for i, name in enumerate(table.names):
        own = continued(run, table.steps) if i == 0 else table.values[:, i]
        values = own.astype(np.float64)
        known = np.isfinite(values)
        if known.sum() >= 20:
            yield Rates(name, table.steps[known], values[known])


def _negative(rates: Rates) -> Break | None:
    below = np.flatnonzero(rates.values < 0)
    if not below.size:
        return None
    first, last = int(below[0]), int(below[-1])
    before, now = float(rates.values[max(first - 1, 0)]), float(rates.values[below].min())
    words = f"is negative, {figure(now)}, at {len(below)} steps: each climbs the loss"
    return Break(rates, first, last, before, now, Severity.critical, words)


def _zero(rates: Rates, share: float) -> Break | None:
    begun = np.maximum.accumulate(rates.values) > 0
    first, length = longest_stretch((rates.values == 0) & begun)
    if length < max(3.0, share * len(rates.values)):
        return None
    words = f"is zero for {length} steps: they teach nothing"
    before = float(rates.values[first - 1])
    return Break(rates, first, first + length - 1, before, 0.0, Severity.warning, words)


def _ups(rates: Rates, jump: float, territory: float) -> list[int]:
    """Positions at which the rate has just jumped up to where it had been before, or beyond all it was."""
    before, after = rates.values[:-1], rates.values[1:]
    peak = np.maximum.accumulate(before)
    one = (np.diff(rates.steps) == 1) & (rates.steps[:-1] >= STEEP) & (before > 0)
    # Near the trough of a cosine a trifle is a multiple of the rate.
    reset = (before < peak / jump) & (after > jump * before) & (after > 0.05 * peak)
    beyond = (after > territory * peak) & (after > jump * before)
    return [int(i) + 1 for i in np.flatnonzero(one & (reset | beyond))]


def _up(run: Run, rates: Rates, ups: list[int], territory: float, level: float) -> Break | None:
    if not ups:
        return None
    tops = rates.values[ups]
    periodic = len(ups) > 1 and float(tops.max()) < 1.5 * float(tops.min())
    told = {at: aftermath(run, int(rates.steps[at]) + 1) for at in ups[:16]}
    worst = max(ups[:16], key=lambda at: seen.z if (seen := told[at]) else 0.0)
    seen, bad = told[worst], harmed(run)
    before, now = float(rates.values[worst - 1]), float(rates.values[worst])
    beyond = now > territory * float(rates.values[:worst].max())
    rose = seen is not None and (seen.bad or (beyond and seen.level > level and seen.share > 0.05))
    severity = Severity.info
    if rose:
        severity = Severity.critical if bad else Severity.info if periodic else Severity.warning
    words = f"jumps from {figure(before)} to {figure(now)} in one step"
    if rose and seen is not None:
        words += f", and the loss rises by {figure(seen.z)} robust deviations"
    return Break(rates, worst, worst, before, now, severity, words)


def _down(run: Run, rates: Rates, fall: float) -> Break | None:
    before, after = rates.values[:-1], rates.values[1:]
    steep = (after > 0) & (before > fall * after) & (np.diff(rates.steps) == 1)
    falls = np.flatnonzero(steep & (rates.steps[1:] < 0.9 * run.steps))
    if not falls.size:
        return None
    at = int(falls[0]) + 1
    before_it, now = float(rates.values[at - 1]), float(rates.values[at])
    words = f"falls from {figure(before_it)} to {figure(now)} in one step"
    stays = bool((rates.values[at:] < before_it / 10).all())
    severity = Severity.warning if stays and rates.steps[at] < 0.8 * run.steps else Severity.info
    return Break(rates, at, at, before_it, now, severity, words)


def _ahead(run: Run, rates: Rates) -> Break | None:
    """It is at its lowest for the first time when 1/k of the steps are done."""
    several = history(run, "run.micro_batches").finite().values
    count = round(float(np.median(several))) if len(several) else 1
    top = int(np.argmax(rates.values))
    low, high = float(rates.values[top:].min()), float(rates.values[top])
    if count < 2 or run.info.ended is None or low > 0.5 * high:
        return None
    bottom = top + int(np.argmax(rates.values[top:] <= low + 0.001 * (high - low)))
    if abs(count * float(rates.steps[bottom] + 1) / run.steps - 1.0) > 0.05:
        return None
    words = (
        f"reaches its end, {figure(low)}, after 1/{count} of the steps, of {count} micro-batches each: the "
        "scheduler is stepped once a micro-batch"
    )
    return Break(rates, bottom, len(rates.values) - 1, high, low, Severity.warning, words)


def _finding(run: Run, found: Break, jump: float, jumps: int) -> Finding:
    rates = found.rates
    first, last = int(rates.steps[found.first]), int(rates.steps[found.last])
    which = "" if rates.site == "run" else f" of group {rates.site}"
    return Finding(
        severity=found.severity,
        confidence=0.9 if found.severity > Severity.info else 0.6,
        sites=(rates.site,),
        onset_step=first,
        peak_step=first,
        last_step=last,
        message=f"The learning rate{which} {found.words} (step {first}).",
        value=found.now,
        threshold=jump * found.before,
        evidence=(
            Evidence("run.lr", (rates.site,)),
            *([Evidence("run.loss", ("run",))] if "run.loss" in run else []),
        ),
        facts={
            "lr_before": found.before,
            "lr": found.now,
            "lr_peak": float(rates.values.max()),
            "jumps": float(jumps),
            "harmed": float(harmed(run)),
        },
    )


def _loss(rng: np.random.Generator, count: int = 400) -> np.ndarray:
    return 2.0 + 2.8 * np.exp(-np.arange(count) / 60) + 0.05 * rng.standard_normal(count)


def _cosine(count: int = 400, horizon: int = 400) -> np.ndarray:
    return 1e-3 * (1 + np.cos(np.pi * np.arange(count) / horizon)) / 2 + 1e-5


@schedule_jump.fires_on
def _reset_by_a_resume(rng: np.random.Generator) -> Run:
    rate, loss = _cosine(), _loss(rng)
    rate[300:] = rate[:100]
    loss[301:360] += np.linspace(1.0, 0.2, 59)
    return run_of({"run.lr": rate, "run.loss": loss})


@schedule_jump.fires_on
def _beyond_all_that_was_and_a_noisy_loss_stays_up(rng: np.random.Generator) -> Run:
    loss = 2.0 + 2.8 * np.exp(-np.arange(400) / 60) + 0.4 * rng.standard_normal(400)
    loss[151:] += 1.2
    return run_of({"run.lr": np.where(np.arange(400) < 150, 1e-3, 3e-2), "run.loss": loss})


@schedule_jump.fires_on
def _wrong_sign(rng: np.random.Generator) -> Run:
    rate = np.linspace(1e-3, -1e-4, 400)
    return run_of({"run.lr": rate, "run.loss": _loss(rng)})


@schedule_jump.fires_on
def _zero_in_the_middle(rng: np.random.Generator) -> Run:
    rate = _cosine()
    rate[150:200] = 0.0
    return run_of({"run.lr": rate, "run.loss": _loss(rng)})


@schedule_jump.fires_on
def _stepped_once_a_micro_batch(rng: np.random.Generator) -> Run:
    series = {"run.lr": _cosine(horizon=100), "run.loss": _loss(rng), "run.micro_batches": np.full(400, 4.0)}
    return run_of(series, info=RunInfo(ended=400.0))


@schedule_jump.quiet_on
def _warm_restarts(rng: np.random.Generator) -> Run:
    loss = _loss(rng)
    for start in (100, 200, 300):
        loss[start + 1 : start + 30] += np.linspace(0.5, 0.0, 29)
    return run_of({"run.lr": np.tile(_cosine(100, 100), 4), "run.loss": loss})


@schedule_jump.quiet_on
def _milestones(rng: np.random.Generator) -> Run:
    return run_of({"run.lr": np.repeat([0.1, 0.01, 0.001, 0.0001], 100), "run.loss": _loss(rng)})


@schedule_jump.quiet_on
def _warmed_up_by_epochs(rng: np.random.Generator) -> Run:
    warm = np.repeat([0.02, 0.04, 0.06, 0.08, 0.1], 20)
    return run_of({"run.lr": np.r_[0.0, 0.0, warm, np.full(298, 0.1)], "run.loss": _loss(rng)})
