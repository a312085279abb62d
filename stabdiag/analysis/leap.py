"""One output that leapt by orders of magnitude in one step, while all that it was computed from had not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.case import figure
from stabdiag.analysis.robust import median
from stabdiag.core.run import Run

FAR = 1e4
"""How many times its usual an output has to reach: next to float16's range, far beyond any spike."""
NEAR = 10.0
"""How many times their usual outputs before it may reach."""
USUAL = 32
"""Records that say what is usual."""


class Leap(NamedTuple):
    """`usual` and `now` are the largest magnitudes of the output of `site`."""

    site: str
    usual: float
    now: float

    @property
    def words(self) -> str:
        return (
            f"the output of {self.site} leapt from {figure(self.usual)} to {figure(self.now)} in one step, "
            "and what comes before it had not"
        )


def leap(run: Run, step: int, *, within: int = 0, far: float = FAR, near: float = NEAR) -> Leap | None:
    """Of the first record at most `within` steps after `step`: an output beyond `far` times its usual and its
    last, where none before it is beyond `near` times. None where there is no record, or no such output."""
    if "output.absmax" not in run:
        return None
    table = run.table("output.absmax")
    row = int(np.searchsorted(table.steps, step))
    if row < 3 or row == len(table.steps) or table.steps[row] > step + within:
        return None
    usual = np.fmax(_usual(table.values, row), table.values[row - 1])
    known = np.isfinite(usual)
    now = table.values[row].astype(np.float64)
    for at in sorted(np.flatnonzero(known & (usual > 0)), key=lambda i: table.sites[i].order):
        if not np.isfinite(now[at]):
            return None
        if now[at] > far * usual[at]:
            return Leap(table.names[at], float(usual[at]), float(now[at]))
        if now[at] > near * usual[at]:
            return None
    return None


def growth(run: Run, step: int) -> float:
    """How many times its usual the output that grew most had at the last record up to `step`, as the forward
    pass comes before what the step does; 1 where that is not known."""
    if "output.absmax" not in run:
        return 1.0
    table = run.table("output.absmax")
    row = int(np.searchsorted(table.steps, step, side="right")) - 1
    if row < 3:
        return 1.0
    usual = _usual(table.values, row)
    known = usual > 0
    return float(np.nanmax(table.values[row, known] / usual[known], initial=1.0))


def _usual(values: NDArray[np.floating], row: int) -> NDArray[np.float64]:
    """The median of each column over the 32 records before `row`; NaN where none is finite."""
    past = values[max(row - USUAL, 0) : row].astype(np.float64)
    past[~np.isfinite(past)] = np.nan
    return median(past, axis=0)
