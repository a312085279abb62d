"""Robust statistics of series: what is usual is learned from the series itself."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]

MAD_TO_SIGMA = 1.4826  # of a normal distribution


def median(values: ArrayLike, axis: int | None = None) -> Doubles:
    """The median of the values along `axis`, or of all, that are not NaN; NaN where there are none, of which
    numpy's own would warn."""
    series = np.asarray(values)
    if axis is None:
        series, axis = series.reshape(-1), 0
    if not series.shape[axis]:
        return np.full(np.delete(series.shape, axis), np.nan)
    ordered = np.sort(series, axis=axis)  # NaN last
    count = np.sum(~np.isnan(ordered), axis=axis, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis)
    high = np.take_along_axis(ordered, np.minimum(count // 2, max(ordered.shape[axis] - 1, 0)), axis)
    with np.errstate(invalid="ignore"):
        middle = np.where(low == high, low, (low.astype(np.float64) + high) / 2)  # inf - inf is no NaN here
    return np.where(count > 0, middle, np.nan).squeeze(axis)


def spread(values: ArrayLike) -> float:
    """The standard deviation of the bulk of `values`, [n]: 1.4826 times the median absolute deviation
    from the median. NaN is left out; 0 where nothing is left."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    return float(MAD_TO_SIGMA * np.median(np.abs(finite - np.median(finite)))) if finite.size else 0.0


def logarithmic_z(past: ArrayLike, value: float) -> float:
    """By how many robust deviations the logarithm of `value` lies above those of the `past` values, [n].

    The losses of single batches of a task that is nearly solved lie decades apart, in both directions.
    Infinite where `past` has a negative value, or none that is positive.
    """
    before = np.asarray(past, dtype=np.float64)
    before = before[np.isfinite(before)]
    positive = before[before > 0]
    if (before < 0).any() or not positive.size or value <= 0:
        return math.inf
    logs = np.log(np.maximum(before, positive.min()))
    return float((math.log(value) - np.median(logs)) / max(spread(logs), 0.003))


def trailing_median(values: ArrayLike, window: int) -> Doubles:
    """The median of each value, [n], and the `window` - 1 before it; NaN is left out."""
    series = np.asarray(values, dtype=np.float64)
    padded = np.concatenate([np.full(window - 1, np.nan), series])
    return median(sliding_window_view(padded, window), axis=1) if series.size else series


@dataclass(frozen=True)
class Baseline:
    """What was usual just before each value: `center` and `scale`, NaN while too little is known, and
    `flagged`, where the value lay more than the threshold above it."""

    center: Doubles
    scale: Doubles
    flagged: Flags

    def z(self, values: ArrayLike) -> Doubles:
        """By how many scales the values, [n], lie above what was usual."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((np.asarray(values, dtype=np.float64) - self.center) / self.scale)


def baseline(values: ArrayLike, *, z: float, window: int, least: int, floor: ArrayLike = 0.0) -> Baseline:
    """Median and scaled MAD of the last `window` usual values before each of `values`, [n].

    A value is flagged when it lies more than `z` scales above the median of at least `least` usual
    values; a flagged or non-finite value never enters a later baseline, so that a spike hides neither
    itself nor the next one. `floor`, a number or [n], is the least scale.
    """
    series = np.asarray(values, dtype=np.float64)
    floors = np.broadcast_to(np.asarray(floor, dtype=np.float64), series.shape).tolist()
    center, scale = np.full(series.shape, np.nan), np.full(series.shape, np.nan)
    flagged = np.zeros(series.shape, dtype=bool)
    usual: deque[float] = deque()
    ordered: list[float] = []
    for i, value in enumerate(series.tolist()):
        if len(ordered) >= least:
            middle = _middle(ordered)
            width = max(MAD_TO_SIGMA * _mad(ordered, middle), floors[i])
            center[i], scale[i] = middle, width
            flagged[i] = value > middle + z * width
        if math.isfinite(value) and not flagged[i]:
            if len(usual) == window:
                del ordered[bisect_left(ordered, usual.popleft())]
            usual.append(value)
            insort(ordered, value)
    return Baseline(center, scale, flagged)


def _middle(ordered: list[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _mad(ordered: list[float], middle: float) -> float:
    """The median of the distances of `ordered` values from their `middle`, without sorting again."""
    half = len(ordered) // 2
    far = _nearest(ordered, middle, half)
    return far if len(ordered) % 2 else (_nearest(ordered, middle, half - 1) + far) / 2


def _nearest(ordered: list[float], middle: float, rank: int) -> float:
    """The distance from `middle` of the value that is the `rank`-th nearest to it, from 0.

    The nearest ones are neighbours: of all stretches of that length it is the one whose ends are about
    equally far away.
    """

    def lies_right(start: int) -> bool:
        return ordered[start + rank] - middle >= middle - ordered[start]

    stretches = len(ordered) - rank
    start = bisect_left(range(stretches), True, key=lies_right)
    ends = (
        max(middle - ordered[at], ordered[at + rank] - middle)
        for at in (start - 1, start)
        if 0 <= at < stretches
    )
    return min(ends)


def slope(values: ArrayLike) -> float:
    """The Theil-Sen slope of `values`, [n], over their index: the median of the slopes of all pairs.

    NaN is left out; NaN below two values.
    """
    series = np.asarray(values, dtype=np.float64)
    at = np.flatnonzero(np.isfinite(series))
    first, second = np.triu_indices(len(at), 1)
    if not first.size:
        return float("nan")
    return float(np.median((series[at[second]] - series[at[first]]) / (at[second] - at[first])))


def forward_filled(values: ArrayLike) -> Doubles:
    """`values`, [steps, sites], with each NaN replaced by the last number above it in its column."""
    table = np.asarray(values, dtype=np.float64)
    rows = np.where(np.isnan(table), 0, np.arange(len(table))[:, None])
    return np.take_along_axis(table, np.maximum.accumulate(rows, axis=0), axis=0) if len(table) else table
