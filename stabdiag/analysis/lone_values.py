"""Values that stand alone far above the usual, their neighbours being usual."""

from __future__ import annotations

import numpy as np

from stabdiag.analysis.history import History
from stabdiag.analysis.robust import Doubles, spread

LEAST = 24
"""Values that say what is usual."""

AFTER = 4
"""Steps after such a value that have to be usual again."""


def lone(
    series: History, z: float, floor: float, relative: float = 0.0, skewed: bool = False
) -> list[tuple[int, float]]:
    """(step, deviations) of finite values that alone lie more than `z` above the usual 64 before them, the
    next one being back to less than a quarter of it, and all but one of the next `AFTER`. A deviation is
    `floor` at least, and `relative` of the usual; and that of the upper half where it is `skewed`."""
    known = series.finite()
    values = known.values
    if len(values) < LEAST + 2:
        return []
    # What stands out from both neighbours by more than most do: only there is the usual looked up.
    edges = values[1:-1] - np.maximum(values[:-2], values[2:])
    parts = np.array_split(np.abs(np.diff(values))[1:], max(1, len(edges) // 512))
    usual = np.concatenate([np.full(len(part), np.quantile(part, 0.75)) for part in parts])
    found = []
    for i in (np.flatnonzero(edges > np.maximum(0.5 * z * floor, 2.6 * usual)) + 1).tolist():
        past = values[max(i - 64, 0) : i]
        if len(past) < LEAST:
            continue
        middle = float(np.median(past))
        upper = upper_deviation(past) if skewed else 0.0
        scale = max(spread(past), upper, floor, relative * abs(middle), 1e-30)
        before, height, after = ((values[i - 1 : i + 2] - middle) / scale).tolist()
        then = float(np.sort(values[i + 1 : i + 1 + AFTER])[-2:][0] - middle) / scale
        if height > z and max(before, after, then) < 0.25 * height:
            found.append((int(known.steps[i]), height))
    return found


def upper_deviation(past: Doubles) -> float:
    """The standard deviation that the largest twentieth of `past` gives, as of a normal distribution."""
    middle, high = np.quantile(past, [0.5, 0.95])
    return float(high - middle) / 1.645
