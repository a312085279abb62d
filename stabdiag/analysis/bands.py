"""Healthy bands: where the columns of a table would lie, had they gone on as they were."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabdiag.analysis.robust import MAD_TO_SIGMA, Doubles, Flags, median

SIGMAS = 4.0
"""Half the width of a band in robust standard deviations of its past, where no past value lies farther."""

FEW = 8
"""Past values from which the width of a band is known to a factor of two."""

BEND = 0.5
"""Share of what a trend adds by which it may bend."""


@dataclass(frozen=True)
class Bands:
    """`low` and `high` of each value, [rows, sites], in the units of the table; NaN where too little is
    known. `excess` is how far the value lies outside, in half-widths, 0 inside."""

    low: Doubles
    high: Doubles
    excess: Doubles


def bands(
    past: ArrayLike,
    past_steps: ArrayLike,
    now: ArrayLike,
    steps: ArrayLike,
    *,
    least: int,
    floor: float,
    linear: bool = False,
) -> Bands:
    """Where `now`, [m, sites] at `steps`, would lie had `past`, [n, sites], gone on.

    The band reaches from where the past ended to its trend, and as far beyond both as the past itself
    strayed: 4 robust deviations, its farthest value, or the share `floor`, whichever is most. It is wider
    the less is known, and where a trend leads far. Columns that were positive are judged by their logarithm,
    others, and all where they are `linear`, as they are. A column with fewer than `least` finite past
    values has no band.
    """
    before, after = np.asarray(past, dtype=np.float64), np.asarray(now, dtype=np.float64)
    before = np.where(np.isfinite(before), before, np.nan)
    count = np.sum(~np.isnan(before), axis=0)
    known = count >= least
    positive = np.all(np.isnan(before) | (before > 0), axis=0) & known & (not linear)
    floors = np.where(positive, np.log1p(floor), floor * np.nanmax(np.abs(before), axis=0, initial=0.0))
    # A share that was exactly 0 so far has no scale of its own.
    floors = np.where(floors == 0, floor / 10, floors)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        before, seen = _scaled(before, positive), _scaled(after, positive)
        level, trend, width = _course(before, np.asarray(past_steps, dtype=np.float64))
        span = max(float(np.ptp(past_steps)), 1.0)
        ahead = np.asarray(steps, dtype=np.float64)[:, None] - float(np.max(past_steps, initial=0))
        half = np.maximum(width, floors) * (1.0 + FEW / np.maximum(count, 1))
        half = half + BEND * np.abs(trend) * ahead
        ended = level + trend * span / 2
        course = ended + trend * ahead
        low, high = np.minimum(ended, course), np.maximum(ended, course)
        excess = np.maximum(np.maximum(low - seen, seen - high), 0.0) / half
        low, high = low - half, high + half
        low, high = (np.where(positive, np.exp(edge), edge) for edge in (low, high))
    return Bands(*(np.where(known, values, np.nan) for values in (low, high, excess)))


def _scaled(values: Doubles, positive: Flags) -> Doubles:
    return np.where(positive, np.log(np.where(positive, values, 1.0)), values)


def _course(values: Doubles, steps: NDArray[np.float64]) -> tuple[Doubles, Doubles, Doubles]:
    """Of each column its level in the middle of `steps`, its slope (between the medians of its first
    and its last third) and how far it strays from that line."""
    third = max(len(values) // 3, 1)
    apart = float(np.median(steps[-third:]) - np.median(steps[:third]))
    rise = median(values[-third:], axis=0) - median(values[:third], axis=0)
    slope = np.nan_to_num(rise / apart) if apart > 0 else np.zeros(values.shape[1])
    middle = (steps[0] + steps[-1]) / 2
    flat = values - slope * (steps - middle)[:, None]
    level = median(flat, axis=0)
    strays = np.abs(flat - level)
    width = np.fmax(SIGMAS * MAD_TO_SIGMA * median(strays, axis=0), np.fmax.reduce(strays, axis=0))
    return level, slope, width
