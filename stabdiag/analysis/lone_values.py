"""Values of a series that stand alone: far above the usual, with neighbours that do not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.history import History
from stabdiag.analysis.robust import logarithmic_z, spread

LEAST = 24
"""Values that say what is usual."""

AFTER = 4
"""Steps after a bad batch that have to be usual again."""

HIGH, BEYOND = 6.0, 60.0
"""Deviations from which a value may be of a tail, and beyond which one in ten of a tail with a mean is."""


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
        upper = upper_spread(past) if skewed else 0.0
        scale = max(spread(past), upper, floor, relative * abs(middle), 1e-30)
        before, height, after = ((values[i - 1 : i + 2] - middle) / scale).tolist()
        then = float(np.sort(values[i + 1 : i + 1 + AFTER])[-2:][0] - middle) / scale
        if height > z and max(before, after, then) < 0.25 * height:
            found.append((int(known.steps[i]), height))
    return found


def upper_spread(past: NDArray[np.float64]) -> float:
    """The standard deviation that the largest twentieth of `past` gives, as of a normal distribution."""
    middle, high = np.quantile(past, [0.5, 0.95])
    return float(high - middle) / 1.645


def has_heavy_tail(losses: History, most: float, loud: float) -> bool:
    """Whether more than `most` values are high by themselves, as the tail of a distribution makes them: not
    where most of these are beyond what a tail with a mean reaches so often, and `loud` deviations off by
    their logarithms too, which the tail of a loss near zero is not."""
    high = lone(losses, HIGH, 0.0, relative=0.003)
    if len(high) <= most:
        return False
    known = [(z, step, at) for step, z in high if (at := losses.at(step)) is not None]
    other = [z > BEYOND and logarithmic_z(losses.before(step), at) > loud for z, step, at in known]
    return float(np.mean(other)) <= 0.5
