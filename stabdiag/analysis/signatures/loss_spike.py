"""The loss jumps and comes back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.episodes import Episode, episodes
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.analysis.robust import baseline, logarithmic_z
from stabdiag.analysis.step_size import schedule
from stabdiag.core.event import Event
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

LISTED = 3
"""Spikes that are told one by one; of more, one finding tells all."""


@signature(
    "loss-spike",
    title="The loss jumps and comes back",
    needs=("run.loss",),
    causes=(
        "corrupt-batch",
        "out-of-distribution-batch",
        "learning-rate-too-high",
        "stale-second-moment",
        "missing-warmup",
        "schedule-bug",
        "hardware-corruption",
        "benign-transient",
    ),
)
def loss_spike(
    run: Run,
    *,
    z: float = 4.0,
    returns: float = 50.0,
    large: float = 0.25,
    single_z: float = 20.0,
    tail: float = 3.0,
) -> Iterator[Finding]:
    """What it means: for a few steps the model was much worse than just before. One small spike is
    harmless; repeated or large ones cost progress, and often come before a divergence.

    How it is detected: the loss lies more than `z` robust deviations above the median of its last 64
    usual values (spikes never enter their own baseline; a quarter of all values in a short log) and by at
    least 5 % of the progress made, and is back within `returns` recorded steps; a single high step must
    reach 1.5 `z`, and `z` of the logarithms too. It is a warning where the loss rose by `large` of the
    progress, and stayed up for 3 steps or more or was above `single_z` deviations once; or where it stayed
    up repeatedly; never where several optimizers train, whose losses are a game: what one side loses the
    other has won. Single high steps more frequent than `tail` in 1,000 are the tails of the run's own noise
    and are left out.

    Look-alikes: tiny batches have heavy-tailed losses, and so has a task that is nearly solved, whose losses
    lie decades apart; a rise that stays is loss-divergence. One bad
    batch is high for one step and normal on the next; a spike of the optimizer lasts several steps, on
    different data.

    Calibrated on: no finding above info in 222 healthy runs of 83,963 steps: fewer than 0.04 in 1,000, at
    95 %. Heavy-tailed regression jumps ten times in 40 steps by 33 deviations, and is left out.

    Fixes: for a bad batch, skip and clean it; for the optimizer, a lower learning rate, clipping, or a
    smaller beta2.

    Reference: Chowdhery et al. 2022 (PaLM, arXiv 2204.02311); OLMo 2 (arXiv 2501.00656).

    Facts: loss_before, loss_peak, z, steps_raised, spikes, progress_lost (share), lr.
    """
    curve = loss_curve(run, least=48)
    floor = 0.003 * np.abs(np.nan_to_num(curve.level))
    # In a short log 64 values reach back to where the loss was still falling fast.
    window = int(np.clip(len(curve.values) // 4, 24, 64))
    usual = baseline(curve.values, z=z, window=window, least=24, floor=floor)
    heights = curve.values - usual.center
    progress = np.maximum(curve.start - usual.center, 0.0)
    counted = usual.flagged & np.isfinite(curve.values) & (heights > 0.05 * progress)
    counted[: max(20, len(counted) // 50)] = False
    deviations = usual.z(curve.values)

    def stands_out(at: int) -> bool:
        past = curve.values[:at][~usual.flagged[:at]][-window:]
        return bool(deviations[at] > 1.5 * z and logarithmic_z(past, curve.values[at]) > z)

    found = [
        e
        for e in episodes(counted, heights)
        if _returned(e, usual.flagged, returns) and (_stayed(e) or stands_out(e.peak))
    ]
    narrow = [_jumps(counted[e.first : e.last + 1]) for e in found if not _stayed(e)]
    if sum(narrow) > max(2.0, tail * len(counted) / 1000):
        found = [e for e in found if _stayed(e)]

    def grave(episode: Episode) -> bool:
        share = heights[episode.peak] / max(progress[episode.peak], 1e-30)
        wide = _stayed(episode) and deviations[episode.peak] > 2 * z
        return bool(share > large and (wide or deviations[episode.peak] > single_z))

    repeated = sum(_stayed(e) and deviations[e.peak] > 2 * z for e in found) >= LISTED
    groups = [[e] for e in found] if len(found) <= LISTED else [found]
    for group in groups:
        worst = max(group, key=lambda e: heights[e.peak])
        warn = not curve.several and (repeated or any(grave(e) for e in group))
        at, onset = worst.peak, int(curve.steps[group[0].first])
        before, peak = float(usual.center[at]), float(curve.values[at])
        facts = {
            "loss_before": before,
            "loss_peak": peak,
            "z": float(deviations[at]),
            "steps_raised": float(worst.count),
            "spikes": float(len(found)),
            "progress_lost": float(heights[at] / max(progress[at], 1e-30)),
        }
        rate = schedule(run).at(onset)
        many = f" It is the largest of {len(group)} spikes." if len(group) > 1 else ""
        yield Finding(
            severity=Severity.warning if warn else Severity.info,
            confidence=float(np.clip(0.5 + deviations[at] / 40, 0.5, 0.95)),
            sites=("run",),
            onset_step=onset,
            peak_step=int(curve.steps[at]),
            last_step=int(curve.steps[group[-1].last]),
            message=f"The loss jumps from {figure(before)} to {figure(peak)} at step {curve.steps[at]}, "
            f"{figure(deviations[at])} robust deviations, and comes back.{many}",
            value=float(deviations[at]),
            threshold=z,
            evidence=(Evidence("run.loss", ("run",), threshold=before + z * float(usual.scale[at])),),
            facts=facts if rate is None else {**facts, "lr": rate},
        )


def _jumps(flagged: np.ndarray) -> int:
    """How often the loss went up, from an unflagged step to a flagged one."""
    return 1 + int(np.count_nonzero(flagged[1:] & ~flagged[:-1]))


def _stayed(episode: Episode) -> bool:
    """Whether the loss stayed up, rather than jumped up now and then."""
    return episode.count >= max(3, (episode.last - episode.first + 1) / 2)


def _returned(episode: Episode, flagged: np.ndarray, returns: float) -> bool:
    """Whether it is over: short enough, the small rest of it included, and followed by 3 usual steps."""
    usual = np.flatnonzero(~flagged[episode.last :])
    end = episode.last + (int(usual[0]) if usual.size else len(flagged))
    after = flagged[end : end + 3]
    return bool(end - 1 - episode.first <= returns and len(after) == 3 and not after.any())


def _falling(rng: np.random.Generator, count: int = 400) -> np.ndarray:
    return 2.0 + 2.8 * np.exp(-np.arange(count) / 60) + 0.05 * rng.standard_normal(count)


@loss_spike.fires_on
def _several_steps_up(rng: np.random.Generator) -> Run:
    loss = _falling(rng)
    loss[200:212] += np.linspace(2.0, 0.3, 12)
    return run_of({"run.loss": loss})


@loss_spike.fires_on
def _one_bad_batch(rng: np.random.Generator) -> Run:
    loss = _falling(rng)
    loss[300] += 3.0
    return run_of({"run.loss": loss})


@loss_spike.fires_on
def _dies_away_slowly(rng: np.random.Generator) -> Run:
    loss = 2.0 + 5.0 * np.exp(-np.arange(1500) / 190) + 0.02 * rng.standard_normal(1500)
    loss[900:908] += np.linspace(2.0, 0.15, 8)
    return run_of({"run.loss": loss})


@loss_spike.fires_on
def _in_a_log_of_every_tenth_step(rng: np.random.Generator) -> Run:
    loss = 2.5 + 5.0 * np.exp(-np.arange(100) / 12) + 0.03 * rng.standard_normal(100)
    loss[60:68] += np.linspace(2.0, 0.2, 8)
    return run_of({"run.loss": loss}, steps={"run": 10 * np.arange(1, 101)})


@loss_spike.quiet_on
def _a_short_log_that_falls_fast(rng: np.random.Generator) -> Run:
    loss = 2.5 + 5.0 * np.exp(-np.arange(60) / 8) + 0.03 * rng.standard_normal(60)
    return run_of({"run.loss": loss}, steps={"run": 500 * np.arange(1, 61)})


@loss_spike.quiet_on
def _heavy_tails(rng: np.random.Generator) -> Run:
    return run_of({"run.loss": _falling(rng) + 0.05 * rng.pareto(1.5, 400)})


@loss_spike.quiet_on
def _a_task_that_is_nearly_solved(rng: np.random.Generator) -> Run:
    loss = np.exp(np.maximum(-np.arange(400) / 40, -6) + 2.0 * rng.standard_normal(400))
    loss[[250, 330]] = 0.4, 0.9
    return run_of({"run.loss": np.minimum(loss, 1.5)})


@loss_spike.quiet_on
def _tails_that_come_close_to_each_other(rng: np.random.Generator) -> Run:
    loss = _falling(rng)
    loss[200:250:7] += 3.0
    return run_of({"run.loss": loss})


@loss_spike.quiet_on
def _a_round_that_one_side_of_a_game_won(rng: np.random.Generator) -> Run:
    loss = 2.06 + 0.01 * rng.standard_normal(400)
    loss[200:212] += 0.2
    sides = [Event("optimizer", 0.0, data={"name": "Adam", "groups": []}) for _ in range(2)]
    return run_of({"run.loss": loss}, events=sides)


@loss_spike.quiet_on
def _rises_for_good(rng: np.random.Generator) -> Run:
    loss = _falling(rng)
    loss[250:] += 2.0
    return run_of({"run.loss": loss})
