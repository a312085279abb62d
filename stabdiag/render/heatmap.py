"""Layer x step maps of every series with several sites, one byte a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.render.curve import positive_steps
from stabdiag.render.downsample import spans_decades
from stabdiag.render.envelope import envelope, last_values

COLUMNS = 600
UNMEASURED, BROKEN = 0, 255
LOWEST, HIGHEST = 1, 254


@dataclass(frozen=True)
class HeatMap:
    """`cells` is [rows, columns] of uint8 in forward order: 0 is not measured, 255 not finite, else an
    index into `values`, the mean of what the level stands for. `steps` are the first steps of the columns."""

    series: str
    sites: tuple[Site, ...]
    steps: NDArray[np.int64]
    cells: NDArray[np.uint8]
    values: NDArray[np.float64]


def heat_maps(run: Run, series: Sequence[str], cells: int) -> list[HeatMap]:
    """One a series in which anything was measured, in their order; about `cells` in all. None where no
    series has several sites: there are no layers to lay over the steps, as in most logs of other tools."""
    named = [name for name in series if _drawable(run, name)]
    if all(len(run.table(name).sites) < 2 for name in named):
        return []
    rows = sum(len(run.table(name).sites) for name in named)
    columns = min(COLUMNS, max(cells // max(rows, 1), 20))
    return [heat_map(run, name, columns) for name in named]


def _drawable(run: Run, series: str) -> bool:
    kind, _, statistic = series.partition(".")
    if kind == "run":
        return False
    if statistic == "nonfinite":
        return len(positive_steps(run, series)) > 0
    return bool(np.isfinite(last_values(run.table(series).values)).any())


def heat_map(run: Run, series: str, columns: int = COLUMNS) -> HeatMap:
    """Each cell holds the value farthest from zero of its steps, or that one was not finite."""
    table = run.table(series)
    order = sorted(range(len(table.sites)), key=lambda i: (table.sites[i].order < 0, table.sites[i].order, i))
    drawn = envelope(run, series, columns)
    farthest = np.where(np.abs(drawn.low) > np.abs(drawn.high), drawn.low, drawn.high)[:, order]
    levels, means = _quantised(farthest.astype(np.float64))
    levels[drawn.broken[:, order]] = BROKEN
    sites = tuple(table.sites[i] for i in order)
    return HeatMap(series, sites, drawn.steps, np.ascontiguousarray(levels.T), means)


def _quantised(values: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Levels of `values`, and the mean value of each of the 256; spaced by logarithm over decades.

    Zero has the lowest level to itself on a logarithmic scale; on a linear one the outermost 0.5 % share
    the end levels, so that one spike does not flatten the rest.
    """
    finite = np.isfinite(values)
    positive = values[finite & (values > 0)]
    log = spans_decades(positive) and bool((values[finite] >= 0).all())
    if log:
        with np.errstate(divide="ignore"):
            heights = np.log(values)
        low, high, first = np.log(positive.min()), np.log(positive.max()), LOWEST + 1
    else:
        heights, first = values, LOWEST
        low, high = np.quantile(values[finite], [0.005, 0.995]) if finite.any() else (0.0, 0.0)
    share = (np.clip(heights, low, high) - low) / (high - low) if high > low else np.zeros_like(values)
    levels = np.zeros(values.shape, np.uint8)
    levels[finite] = first + np.round(share[finite] * (HIGHEST - first))
    if log:
        levels[finite & (values == 0)] = LOWEST
    counts = np.bincount(levels[finite], minlength=256)
    sums = np.bincount(levels[finite], weights=values[finite], minlength=256)
    return levels, np.divide(sums, counts, out=np.full(256, np.nan), where=counts > 0)
