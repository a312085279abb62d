"""How far two runs lie apart, layer by step: one byte a cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.comparison.apart import Apart, tolerance_of
from stabdiag.analysis.comparison.partings import held, watched
from stabdiag.core.run import Run
from stabdiag.render.comparison.png import Colour, data_address

COLUMNS, CELLS = 600, 400_000
UNMEASURED, TOGETHER, ONE_FINITE = 0, 128, 255
STEEP = 4.0
"""Widths of the noise at which the colours end."""

HIGHER, LOWER, BROKEN = (213, 94, 0), (0, 114, 178), (204, 51, 153)
FAINT, CLEAR = 30, 110
"""Opacity at the edge of the noise, within and beyond."""


@dataclass(frozen=True)
class Difference:
    """`names` are the rows, in forward order; `steps` the first step of each column; `cells` [rows, columns]:
    0 where not both were measured, 255 where only one was finite, else 128 and as far from it as b lies above
    a, 126 for STEEP widths of the noise."""

    series: str
    names: tuple[str, ...]
    steps: NDArray[np.int64]
    cells: NDArray[np.uint8]

    @property
    def address(self) -> str:
        return data_address(self.cells, PALETTE)


def differences(a: Run, b: Run) -> Iterator[Difference]:
    """One for each series of several sites of which any parts, about CELLS in all."""
    tolerance = tolerance_of(a, b)
    kinds = [series for series in watched(a, b) if not series.startswith(("run.", "evaluation."))]
    rows = sum(len(a.table(series).sites) for series in kinds)
    columns = min(COLUMNS, max(CELLS // max(rows, 1), 20))
    for series in kinds:
        found = held(a, b, series, tolerance)
        if found is not None and found.beyond.any() and len(found.pair.sites) > 1:
            yield _difference(found, columns)


def _difference(found: Apart, columns: int) -> Difference:
    """Each cell holds the largest distance of its steps."""
    sites = found.pair.sites
    order = sorted(range(len(sites)), key=lambda i: (sites[i].order < 0, sites[i].order, i))
    signed = np.where(found.higher, found.excess, -found.excess)[:, order]
    rows = len(signed)
    starts = np.unique(np.linspace(0, rows, min(columns, rows), endpoint=False).astype(int))
    high, low = np.fmax.reduceat(signed, starts), np.fmin.reduceat(signed, starts)
    widest = np.where(np.abs(low) > np.abs(high), low, high)
    cells = np.zeros(widest.shape, np.uint8)
    finite = np.isfinite(widest)
    cells[finite] = TOGETHER + np.round(np.clip(widest[finite] / STEEP, -1, 1) * 126)
    cells[np.isinf(widest)] = ONE_FINITE
    names = tuple(sites[i].name for i in order)
    return Difference(found.pair.series, names, found.pair.steps[starts], np.ascontiguousarray(cells.T))


def _colour(cell: int) -> Colour:
    if cell in (UNMEASURED, TOGETHER):
        return (0, 0, 0, 0)
    if cell == ONE_FINITE:
        return (*BROKEN, 255)
    far = abs(cell - TOGETHER) / 126 * STEEP
    alpha = FAINT * far if far < 1 else CLEAR + (255 - CLEAR) * (far - 1) / (STEEP - 1)
    return (*(HIGHER if cell > TOGETHER else LOWER), round(min(alpha, 255)))


PALETTE = [_colour(cell) for cell in range(256)]
