"""Weights that grow by more than their optimizer's steps account for: something else writes to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.episodes import longest_stretch
from stabdiag.analysis.robust import Doubles
from stabdiag.core.run import Run

UNSEEN = 3.0
"""Times the larger of two recorded updates that those between them may have been."""

ROUNDING = 0.01
"""Growth of a logarithm that needs no account."""

INTERVALS = 3
"""Between records, in a row: what is written once, as by an initialization or an average, is no growth."""


def unaided_growth(
    run: Run, steps: NDArray[np.int64], names: tuple[str, ...], norms: Doubles
) -> tuple[Doubles, int]:
    """[matrices] the logarithm of the growth of `norms` [records, matrices] that no update accounts for, over
    the longest stretch of `INTERVALS` and more in each of which there is some, 0 where there is none; and the
    record at which the first stretch begins.

    A step changes a norm by no more than the update's own: ‖w + Δ‖ ≤ ‖w‖ (1 + ratio)."""
    beyond = np.diff(np.log(norms), axis=0) - _reach(run, steps, names) - ROUNDING
    growth, begins = np.zeros(len(names)), len(steps) - 1
    for column in range(len(names)):
        first, length = longest_stretch(beyond[:, column] > 0)
        if length >= INTERVALS:
            growth[column] = beyond[first : first + length, column].sum()
            begins = min(begins, first)
    return growth, begins


def _reach(run: Run, steps: NDArray[np.int64], names: tuple[str, ...]) -> Doubles:
    """[records - 1, matrices]: by how much the steps from one record to the next can have moved the logarithm
    of a norm; infinite where no update is known."""
    reach = np.full((len(steps) - 1, len(names)), np.inf)
    if "update.ratio" not in run:
        return reach
    table = run.table("update.ratio")
    at = np.clip(np.searchsorted(table.steps, steps, side="right") - 1, 0, None)
    for column, name in enumerate(names):
        if name in table.names and len(table.steps):
            ratio = table.column(name)[at].astype(np.float64)
            larger = np.fmax(ratio[1:], ratio[:-1])
            reach[:, column] = np.where(np.isfinite(larger), UNSEEN * np.diff(steps) * larger, np.inf)
    return reach
