"""A series whose level changes from one step to the next, and stays changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from stabdiag.analysis.history import History
from stabdiag.analysis.robust import median, spread

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
    `noise`, of which `sharp` happened at one step; with `up` only a rise. None where there is none."""
    values = series.values
    if len(values) < 2 * SPAN + 1 or noise <= 0:
        return None
    levels = median(sliding_window_view(values, SPAN), axis=1)
    low, high = levels[:-SPAN], levels[SPAN:]  # of the values before and from position SPAN + i
    first = median(sliding_window_view(values, 3), axis=1)[SPAN : SPAN + len(low)]
    rise = high - low
    size = rise if up else np.abs(rise)
    sudden = (size > z * noise) & ((first - low) * np.sign(rise) > sharp * np.abs(rise))
    at = np.flatnonzero(sudden)
    if not len(at):
        return None
    edges = (values[at + SPAN] - values[at + SPAN - 1]) * np.sign(rise[at])
    best = int(at[np.argmax(edges)])
    return Shift(
        int(series.steps[best + SPAN]),
        best + SPAN,
        float(low[best]),
        float(high[best]),
        float(abs(rise[best]) / noise),
    )


def noise_of(series: History) -> float:
    """The standard deviation of single values about a local level, whatever steps there are."""
    scatter = spread(np.diff(series.values)) / float(np.sqrt(2)) if len(series) > 2 else 0.0
    return max(scatter, 1e-3 * float(np.median(np.abs(series.values))) if len(series) else 0.0)
