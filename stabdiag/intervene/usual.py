"""What is usual of a quantity while training goes on, by its own history."""

from __future__ import annotations

import math
import statistics
from collections import deque

WINDOW = 128
LEAST = 32
"""Usual values that are needed before any is called unusual."""

SHIFT = 20
"""That many unusual values in a row are no outliers: the level has changed, and the history begins anew."""

MAD_TO_SIGMA = 1.4826  # of a normal distribution


class Usual:
    """Median and scaled median absolute deviation of the last `WINDOW` usual values. What is unusual, or no
    finite number, never enters. `floor` is the least deviation, as a share of the median where `relative`.
    """

    def __init__(self, floor: float, relative: bool = False) -> None:
        self._floor = floor
        self._relative = relative
        self._values: deque[float] = deque(maxlen=WINDOW)
        self._unusual = 0

    def limit(self, z: float) -> float:
        """The largest value that lies within `z` deviations above the median; infinite while too little is
        known."""
        if len(self._values) < LEAST:
            return math.inf
        middle = statistics.median(self._values)
        deviation = MAD_TO_SIGMA * statistics.median(abs(value - middle) for value in self._values)
        return middle + z * max(deviation, self._floor * (abs(middle) if self._relative else 1.0))

    def take(self, value: float, usual: bool) -> None:
        if not math.isfinite(value):
            return
        self._unusual = 0 if usual else self._unusual + 1
        if self._unusual >= SHIFT:
            self._values.clear()
            self._unusual = 0
        elif usual:
            self._values.append(value)
