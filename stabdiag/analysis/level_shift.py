"""A series whose level changes from one step to the next, and stays changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from stabdiag.analysis.history import History
from stabdiag.analysis.robust import Doubles, median, spread

SPAN = 25
"""Measurements on either side that tell a level."""


@dataclass(frozen=True)
class Shift:
    """At `step` (position `at`) the level went from `before` to `after`, by `deviations` of a single
    value."""

    step: int
    at: int
    before: float
    after: float
    deviations: float

    @property
    def height(self) -> float:
        return self.after - self.before


def level_shift(series: History, noise: float, *, z: float, sharp: float, up: bool = False) -> Shift | None:
    """The most abrupt change of the level (median of 25 values) of finite `series` by more than `z` times
    `noise`, `sharp` of which happened at once (between medians of 3 just before and after); with `up` only a
    rise. None where there is none."""
    values = series.values
    if len(values) < 2 * SPAN + 1 or noise <= 0:
        return None
    threes = median(sliding_window_view(values, 3), axis=1)
    edges = np.zeros(len(values))
    inner = np.arange(SPAN, len(values) - SPAN + 1)
    edges[inner] = threes[inner] - threes[inner - 3]
    steep = edges if up else np.abs(edges)
    candidates = np.flatnonzero(steep > sharp * z * noise)
    if not len(candidates):
        return None
    # The steepest few decide: more than these is noise that was not known to be so large.
    candidates = candidates[np.argsort(-steep[candidates])[:64]]
    windows = sliding_window_view(values, SPAN)
    low, high = median(windows[candidates - SPAN], axis=1), median(windows[candidates], axis=1)
    rise = high - low
    sudden = (np.abs(rise) > z * noise) & (edges[candidates] * np.sign(rise) > sharp * np.abs(rise))
    if not sudden.any():
        return None
    jumps = np.where(sudden, (values[candidates] - values[candidates - 1]) * np.sign(rise), -np.inf)
    best = int(np.argmax(jumps))
    at = int(candidates[best])
    return Shift(
        int(series.steps[at]), at, float(low[best]), float(high[best]), float(abs(rise[best]) / noise)
    )


def noise_of(series: History) -> float:
    """The standard deviation of single values about a local level, whatever steps there are."""
    scatter = spread(np.diff(series.values)) / float(np.sqrt(2)) if len(series) > 2 else 0.0
    usual = float(np.median(np.abs(series.values))) if len(series) else 0.0
    return max(scatter, 1e-3 * usual, resolution(series.values))


def resolution(values: Doubles) -> float:
    """The median distance between neighbours among the distinct `values`, [n], where these are so few that
    most come twice: those of a 16-bit format. Else 0."""
    distinct = np.unique(values[np.isfinite(values)])
    return float(np.median(np.diff(distinct))) if 1 < len(distinct) < len(values) / 4 else 0.0
