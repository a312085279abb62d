"""How far a series strays from one record to the next by itself."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from stabdiag.analysis.robust import MAD_TO_SIGMA, Doubles, median
from stabdiag.core.run import Floats

Reals = TypeVar("Reals", Floats, Doubles)

WINDOW = 32
"""Records before a record that tell its noise; the first ones are told by those that follow."""

FEW = 4
"""Records from which the noise is known to a factor of two."""

EACH = 32
"""Records that share an estimate."""


def noise(values: Reals) -> Reals:
    """The standard deviation of `values`, [rows, sites], around a smooth course: that of their second
    differences over the root of 6, robustly. 0 where fewer than three records tell nothing; wider the fewer
    there are."""
    rows = len(values)
    sigma = np.zeros_like(values)
    if rows < 3:
        return sigma
    known = np.where(np.isfinite(values), values, np.nan)
    bends = np.abs(known[2:] - 2 * known[1:-1] + known[:-2])
    for start in range(0, rows, EACH):
        # A bend belongs to the record in its middle, and looks one ahead.
        end = max(start - 2, min(WINDOW, len(bends)))
        window = bends[max(end - WINDOW, 0) : end]
        told = np.sum(~np.isnan(window), axis=0)
        width = MAD_TO_SIGMA * median(window, axis=0) / np.sqrt(6) * (1 + FEW / np.maximum(told, 1))
        sigma[start : start + EACH] = np.nan_to_num(width)
    return sigma
