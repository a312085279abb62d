"""One measured quantity through the run: what it was at a step, before it, and usually."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.memory import once
from stabdiag.core.run import Run

WINDOW = 64
"""Measured values that say what is usual."""


@dataclass(frozen=True)
class History:
    """`values` (float64, may be non-finite) at `steps` (int64, increasing), both [n]."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)

    def within(self, first: float, last: float) -> History:
        """Steps first <= step <= last."""
        low, high = np.searchsorted(self.steps, [first, last + 1])
        return History(self.steps[low:high], self.values[low:high])

    def finite(self) -> History:
        kept = np.isfinite(self.values)
        return History(self.steps[kept], self.values[kept])

    def at(self, step: int) -> float | None:
        """The last finite value at or before `step`."""
        known = self.within(0, step).finite()
        return float(known.values[-1]) if len(known) else None

    def before(self, step: int) -> NDArray[np.float64]:
        """The finite values of the last `WINDOW` measurements before `step`."""
        high = int(np.searchsorted(self.steps, step))
        values = self.values[max(high - WINDOW, 0) : high]
        return values[np.isfinite(values)]

    def usual(self, step: int, least: int = 4) -> float | None:
        """The median of `before(step)`; None with fewer than `least` values."""
        values = self.before(step)
        return float(np.median(values)) if len(values) >= least else None

    def peak(self, first: float, last: float) -> tuple[int, float] | None:
        """The step and the value of the largest finite value within first..last."""
        inside = self.within(first, last).finite()
        if not len(inside):
            return None
        best = int(np.argmax(inside.values))
        return int(inside.steps[best]), float(inside.values[best])

    def jump(self, step: int) -> float | None:
        """The largest value at `step` or the step before it, over what was usual before those."""
        usual, peak = self.usual(step - 1), self.peak(step - 1, step)
        if usual is None or peak is None or usual <= 0:
            return None
        return peak[1] / usual


@once
def history(run: Run, series: str, site: str | None = None) -> History:
    """A series of the run itself, or of one site; empty where it was not recorded."""
    nothing = History(np.empty(0, np.int64), np.empty(0, np.float64))
    if series not in run:
        return nothing
    table = run.table(series)
    if site is None:
        return History(table.steps, table.first().astype(np.float64))
    if site not in table.names:
        return nothing
    return History(table.steps, table.column(site).astype(np.float64))
