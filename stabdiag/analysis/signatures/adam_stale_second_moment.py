"""The second moment remembers calmer gradients, and the updates explode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.adam import Moments, ages_at, moments
from stabdiag.analysis.adaptive import adaptive, kept
from stabdiag.analysis.aftermath import BEFORE, Aftermath, followed
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import telling
from stabdiag.analysis.episodes import Episode, episodes
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.analysis.robust import median, spread, trailing_median
from stabdiag.analysis.step_size import schedule
from stabdiag.core.event import Event
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

JUMP = 1.5
"""Over the usual largest update: where gradients agree, as they do early on, it is long without a jump."""

GROWN = 3.0
"""Over the usual norm of a gradient that scatters from batch to batch."""

LAG = 30
"""Steps within which the loss shows what long updates did."""


class _Limits(NamedTuple):
    """Of RMS_t at each record, [n], and of the update in learning rates, where that says something else."""

    rms: NDArray[np.float64]
    step: float | None


@signature(
    "adam-stale-second-moment",
    title="The second moment remembers calmer gradients, and the updates explode",
    needs=("optimizer.rms", "optimizer.step", "run.loss"),
    explains=(
        "lr-divergence",
        "update-ratio-high",
        "edge-of-stability",
        "loss-spike",
        "loss-divergence",
        "exploding-activation",
        "exploding-gradient",
        "nonfinite-origin",
        "attention-logit-growth",
        "attention-entropy-collapse",
        "weight-norm-drift",
    ),
    causes=("stale-second-moment", "optimizer-epsilon", "distribution-shift", "corrupt-batch"),
)
def adam_stale_second_moment(
    run: Run, *, rms: float = 2.3, cap: float = 0.6, long: float = 0.5, lasting: float = 2.0
) -> Iterator[Finding]:
    """What it means: the gradients have grown, and the running mean of their squares, which takes 1/(1 -
    β2) steps to follow, divides by what they were. For a while every update is too long, 1 to 8 steps
    before the loss shows it.

    How it is detected: RMS_t, the root mean square of gradient over second moment, is 1 where the moment is
    right and sqrt((1 - β2^t) / (1 - β2)) at most. It is above the larger of `rms` and `cap` of that in a
    weight matrix, or the update there has jumped above `long` of a whole step in rms, where healthy Adam has
    0.17 to 0.39 (of optimizers that average gradients as it does: in others it says what RMS_t does);
    for `lasting` recorded steps or more, within 20, with a state of 50 steps or more. It is a
    warning where the loss then rises, for three steps or more, by 4 robust deviations and a twentieth of
    the progress, critical where the run ends worse for it, else info. It is not told where the loss rose
    before the gradient of any such matrix had: then the updates only followed. Rates over 17 healthy runs
    with Adam, 7,650 steps: RMS_t 0.12 in 1,000 steps, updates above 0.5 none; asked for with the rise of
    the loss, none in 105 healthy runs of 46,000 steps, nor in 88 with RMSprop, NAdam, Adafactor and others,
    of 31,600 steps.

    Look-alikes: one corrupt batch raises the loss in the same step and no other. A state that was lost
    begins with RMS_t and updates of 1 (optimizer-state-lost). Vectors and rare rows of embeddings exceed 2
    in every run. New data raise RMS_t in all tensors at once, and the loss with it.

    β2 is `alpha` in RMSprop and `rho` in Adadelta, 1 - 1/t in Adagrad, and 1 - t^-0.8 in Adafactor.

    Fixes: β2 0.95, updates clipped at RMS_t (StableAdamW), gradients clipped a little above the usual, half
    the rate. Peak of the loss in a small transformer: 1.29 nat above its twin without, 0.09 with β2 0.95,
    0.15 with clipped updates, 0.17 with clipped gradients.

    Reference: Wortsman et al. 2023 (arXiv 2304.13013); Bai et al. 2025 (arXiv 2506.04805).

    Facts: rms and update_rms (largest), beta2, loss_z, steps_raised, tensors, lr.
    """
    optimizer = adaptive(run)
    seen, curve = moments(run, "rms", "step"), loss_curve(run)
    if len(seen.steps) < 3 or not seen.sites:
        raise NotEvaluable("too few steps with a settled state of the optimizer were recorded")
    ages = ages_at(run, seen.steps)
    whole = optimizer.averages(ages)
    limits = _Limits(
        np.maximum(rms, cap * optimizer.farthest(ages)),
        None if whole is None else long * whole,
    )
    heights = seen["rms"] / limits.rms[:, None]
    if limits.step is not None:
        top = np.fmax.reduce(seen["step"], axis=1)
        jumped = top > JUMP * np.r_[np.inf, trailing_median(top, 16)[:-1]]
        heights = np.fmax(heights, np.where(jumped[:, None], seen["step"] / limits.step, 0.0))
    worst = np.fmax.reduce(heights, axis=1)
    found = episodes(worst > 1.0, worst, gap=2)
    lasted = [e for e in found if e.count >= lasting and not _loss_moved_first(run, curve, seen, e, heights)]
    told = [(e, _after(curve, seen, e)) for e in lasted]
    if not told or curve.several:
        return
    episode, rise = max(
        told[-64:],
        key=lambda pair: (pair[1].z if pair[1] and pair[1].bad else 0.0, worst[pair[0].peak]),
    )
    bad = rise is not None and rise.bad
    severity = Severity.info
    if bad:
        severity = Severity.critical if rise is not None and rise.lost and curve.harmed else Severity.warning
    yield _finding(run, seen, episode, heights, rise, severity, limits)


def _begun(seen: Moments, episode: Episode) -> int:
    """It may have begun in any step since the last that was recorded."""
    return max(int(seen.steps[max(episode.first - 1, 0)]), int(seen.steps[episode.first]) - 20) + 1


def _after(curve: LossCurve, seen: Moments, episode: Episode) -> Aftermath | None:
    """What the loss did, unless it rose first: then the updates followed it."""
    begun = _begun(seen, episode)
    return followed(curve, begun, LAG + int(seen.steps[episode.first]) - begun)


def _loss_moved_first(
    run: Run, curve: LossCurve, seen: Moments, episode: Episode, heights: np.ndarray
) -> bool:
    """Whether the loss rose in a step before which the gradients of all matrices concerned were as usual."""
    begun = _begun(seen, episode)
    high = np.fmax.reduce(heights[episode.first : episode.last + 1], axis=0) > 1.0
    names = {name for name, at in zip(seen.names, high, strict=True) if at}
    risen = _rises_at(curve, begun, int(seen.steps[episode.first]))
    return risen is not None and _calm_before(run, names, begun, risen)


def _rises_at(curve: LossCurve, begun: int, first: int) -> int | None:
    """The first step from `begun` to `first` whose loss stands out, None where none does."""
    start, end = np.searchsorted(curve.steps, [begun, first + 1])
    before = curve.values[max(start - BEFORE, 0) : start]
    high = np.median(before) + 6.0 * spread(before) if len(before) >= 8 else np.inf
    out = np.flatnonzero(~(curve.values[start:end] <= high))
    return int(curve.steps[start + out[0]]) if out.size else None


def _calm_before(run: Run, names: set[str], begun: int, risen: int) -> bool:
    """Whether no gradient of `names` had grown by the step before the loss rose: no update could be long."""
    if "grad.norm" not in run:
        return False
    table = run.window(begun - BEFORE, risen - 1).table("grad.norm")
    columns = [i for i, name in enumerate(table.names) if name in names]
    if not columns or len(table.steps) < 8 or table.steps[-1] != risen - 1:
        return False
    usual = median(table.values[table.steps < begun][:, columns], axis=0)
    return bool((table.values[table.steps >= begun][:, columns] <= GROWN * usual).all())


def _finding(
    run: Run,
    seen: Moments,
    episode: Episode,
    heights: np.ndarray,
    rise: Aftermath | None,
    severity: Severity,
    limits: _Limits,
) -> Finding:
    optimizer, limit = adaptive(run), float(limits.rms[episode.first])
    part = slice(episode.first, episode.last + 1)
    lag = np.fmax.reduce(seen["rms"][part], axis=1) / limits.rms[part]
    first = np.fmax.reduce(heights[part][:3], axis=0)
    sites = telling(seen.names, np.where(first > 1.0, first, np.nan))
    largest = float(np.fmax.reduce(seen["rms"][part], axis=None))
    update = float(np.fmax.reduce(seen["step"][part], axis=None))
    onset = int(seen.steps[episode.first])
    passed = (largest, limit)
    if limits.step is not None and not np.any(lag > 1.0):
        passed = (update, limits.step)
    facts = {
        "rms": largest,
        **({"update_rms": update} if np.isfinite(update) else {}),
        "beta2": kept(run, onset) or float("nan"),
        "loss_z": rise.z if rise else 0.0,
        "steps_raised": float(episode.count),
        "tensors": float(np.sum(np.fmax.reduce(heights[part], axis=0) > 1.0)),
    }
    rate = schedule(run).at(onset)
    long = f", and updates {figure(update)} learning rates" if np.isfinite(update) else ""
    ends = (
        f"; the loss rises by {figure(rise.z)} robust deviations"
        if severity and rise
        else "; the loss bears it"
    )
    return Finding(
        severity=severity,
        confidence=0.9 if severity else 0.5,
        sites=sites or (seen.names[int(np.nanargmax(np.nan_to_num(first)))],),
        onset_step=onset,
        peak_step=int(seen.steps[episode.peak]),
        last_step=int(seen.steps[episode.last]),
        message=f"Gradients reach {figure(largest)} times the root of {optimizer.name}'s second moment"
        f"{long}, from step {onset} on{ends}.",
        value=passed[0],
        threshold=passed[1],
        evidence=(
            Evidence("optimizer.rms", sites, threshold=limit, band=(0.5, 1.5), log=True),
            Evidence("optimizer.step", sites, threshold=limits.step),
            Evidence("run.loss", ("run",)),
        ),
        facts=facts if rate is None else {**facts, "lr": rate},
    )


def _run(
    rng: np.random.Generator,
    factor: float,
    rise: float,
    beta2: float = 0.999,
    length: int = 40,
    name: str = "Adam",
) -> Run:
    steps = np.r_[0:5, 10:400:2]
    since = steps - 250
    # After a jump by `factor` the second moment makes up (1 - β2) of what is missing a step.
    lag = np.where(since < 0, 1.0, factor / np.sqrt(1 + np.maximum(since, 0) * (1 - beta2) * factor**2))
    lag[since > length] = 1.0
    rms = lag[:, None] * np.exp(0.1 * rng.standard_normal((len(steps), 4)))
    rms[:, 3] = 1.0
    loss = 2.0 + 2.8 * np.exp(-np.arange(400) / 60) + 0.05 * rng.standard_normal(400)
    loss[252:280] += rise
    # The same memory, in the words of either; and updates that are averaged, or are not.
    group = {"lr": 1e-3, "betas": [0.9, beta2], "alpha": beta2, "eps": 1e-8}
    update = rms if name == "RMSprop" else 0.25 * rms
    return run_of(
        {"optimizer.rms": rms, "optimizer.step": update, "run.loss": loss},
        sites={"optimizer": weights("optimizer", 4)},
        steps={"optimizer": steps},
        events=[Event("optimizer", 0.0, data={"name": name, "groups": [group]})],
    )


@adam_stale_second_moment.fires_on
def _gradients_grow_and_the_loss_follows(rng: np.random.Generator) -> Run:
    return _run(rng, factor=25.0, rise=1.2)


@adam_stale_second_moment.fires_on
def _with_a_shorter_memory(rng: np.random.Generator) -> Run:
    return _run(rng, factor=4.0, rise=1.2, beta2=0.98, length=10)


@adam_stale_second_moment.fires_on
def _of_gradients_that_are_not_averaged(rng: np.random.Generator) -> Run:
    return _run(rng, factor=25.0, rise=1.2, beta2=0.99, name="RMSprop")


@adam_stale_second_moment.quiet_on
def _steps_that_are_whole_in_health(rng: np.random.Generator) -> Run:
    return _run(rng, factor=1.8, rise=1.2, name="RMSprop")


@adam_stale_second_moment.quiet_on
def _without_consequence(rng: np.random.Generator) -> Run:
    return _run(rng, factor=25.0, rise=0.0)


@adam_stale_second_moment.quiet_on
def _loss_rises_and_the_moment_is_right(rng: np.random.Generator) -> Run:
    return _run(rng, factor=1.3, rise=1.2)
