"""When the loss shows a fault: against the healthy twin of the same seed, and by a watch on the loss
alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.losscurve import several_optimizers
from stabdiag.core.run import MissingSeries, Run

Doubles = NDArray[np.float64]
SMOOTH = 20
LASTS = 10
WINDOW = 128
SIGMAS = 6.0


def losses(run: Run) -> tuple[NDArray[np.int64], Doubles]:
    """Steps and losses, the non-finite ones as they are; empty where none was recorded."""
    try:
        table = run.table("run.loss")
    except MissingSeries:
        return np.empty(0, dtype=np.int64), np.empty(0)
    return table.steps, table.first().astype(np.float64)


def harm(run: Run, twin: Run) -> int | None:
    """The first step of ten at which the smoothed loss lies above the twin's by more than 5 % of the twin's
    progress and three deviations of their difference; or the first non-finite one. None where neither
    comes. The losses of opposed players part by themselves: there it is by twice the highest level of the
    twin."""
    steps, values = losses(run)
    _, sound = losses(twin)
    count = min(len(values), len(sound))
    broken = np.flatnonzero(~np.isfinite(values))
    first_broken = int(steps[broken[0]]) if len(broken) else None
    if count < 2 * SMOOTH:
        return first_broken
    gap = _smoothed(values[:count] - sound[:count])
    level = _smoothed(sound[:count])
    progress = np.nanmax(level) - np.nanmin(level)
    noise = np.nanstd(sound[:count] - level) * np.sqrt(2 / SMOOTH)
    least = max(0.05 * progress, 3 * noise)
    if several_optimizers(twin):
        least = max(least, 2 * float(np.nanmax(np.abs(level))))
    worse = (gap > least).astype(int)
    runs = np.convolve(worse, np.ones(LASTS, dtype=int), mode="valid") == LASTS
    first = int(steps[np.argmax(runs)]) if runs.any() else None
    known = [step for step in (first, first_broken) if step is not None]
    return min(known, default=None)


def _smoothed(values: Doubles) -> Doubles:
    """Exponential mean over about twenty steps; what is not finite leaves it as it is."""
    out, level = np.empty_like(values), np.nan
    for i, value in enumerate(values):
        if np.isfinite(value):
            level = value if np.isnan(level) else level + (value - level) * 2 / (SMOOTH + 1)
        out[i] = level
    return out


def loss_alarms(run: Run) -> list[int]:
    """Steps at which the loss alone would alarm: above the mean and six deviations of the 128 before, or not
    finite. The usual watch of trainers, without their bug that a NaN blinds it."""
    steps, values = losses(run)
    alarms, window = [], list[float]()
    for step, value in zip(steps, values, strict=True):
        if not np.isfinite(value):
            alarms.append(int(step))
            continue
        recent = window[-WINDOW:]
        if len(recent) >= WINDOW // 2 and value > np.mean(recent) + SIGMAS * np.std(recent):
            alarms.append(int(step))
        window.append(value)
    return alarms
