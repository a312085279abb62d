"""One matrix whose steps are out of proportion to those of all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stabdiag.analysis.depth import telling
from stabdiag.analysis.robust import Flags, median
from stabdiag.analysis.updates import Updates
from stabdiag.core.run import Floats, Run

FEWEST = 4
"""Matrices of which a single one can be told from the others."""


@dataclass(frozen=True)
class Lone:
    """The matrices, the one that was replaced most first: `onset`, `peak` and `last` are steps, `ratio` and
    `others` that of update and weight at the peak and the median of all, `replaced` the sum of the former
    over all steps."""

    sites: tuple[str, ...]
    onset: int
    peak: int
    last: int
    ratio: float
    others: float
    replaced: float


def lone_update(
    run: Run, taken: Updates, ratio: Floats, least: float, times: float, count: int
) -> Lone | None:
    """A matrix with a `ratio`, [steps, matrices], above `least` and `times` the median of all, at `count`
    records in a row; None where there is none. One whose elements began far below those of the others is
    left out: it finds its scale."""
    if ratio.shape[1] < FEWEST or len(ratio) < count:
        return None
    usual = taken.middle if ratio is taken.ratio else median(ratio, axis=1)
    with np.errstate(invalid="ignore"):
        bad: Flags = (ratio > np.maximum(least, times * usual[:, None])) & _of_usual_size(run, taken)
    lasting: Flags = np.all(sliding_window_view(bad, count, axis=0), axis=-1)
    rows, which = np.flatnonzero(np.any(lasting, axis=1)), np.flatnonzero(np.any(lasting, axis=0))
    if not len(rows):
        return None
    high = [np.where(bad[:, i], ratio[:, i], 0.0) for i in which]
    path = np.array([_path(taken.steps, one) for one in high])
    worst = int(which[np.argmax(path)])
    peak = int(np.argmax(high[int(np.argmax(path))]))
    return Lone(
        sites=telling([taken.names[i] for i in which], path),
        onset=int(taken.steps[rows[0]]),
        peak=int(taken.steps[peak]),
        last=int(taken.steps[np.flatnonzero(bad[:, worst])[-1]]),
        ratio=float(ratio[peak, worst]),
        others=float(usual[peak]),
        replaced=float(path.max()),
    )


def against_the_start(run: Run, taken: Updates) -> Floats:
    """[steps, matrices]: the ratio to the norm that the weight has, or began with, whichever is larger. What
    decays to nothing is replaced by any step."""
    if "weight.norm" not in run:
        return taken.ratio
    table = run.table("weight.norm")
    places = {name: i for i, name in enumerate(table.names)}
    rows = np.clip(np.searchsorted(table.steps, taken.steps, side="right") - 1, 0, None)
    ratio = taken.ratio
    for i, name in enumerate(taken.names):
        norm = table.values[:, places[name]] if name in places else table.values[:0, 0]
        if len(norm) and (norm < norm[0]).any():
            ratio = ratio.copy() if ratio is taken.ratio else ratio
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio[:, i] *= np.fmin((norm / norm[0])[rows], 1.0)
    return ratio


def _path(steps: NDArray[np.int64], ratio: Floats) -> float:
    """The sum of the ratios over all steps, of those between two records as of the nearer one."""
    width = np.gradient(steps.astype(np.float64)) if len(steps) > 1 else np.ones(len(steps))
    return float(np.nansum(ratio * width))


def _of_usual_size(run: Run, taken: Updates) -> Flags:
    """[matrices]: whether its elements began no more than ten times smaller than those of most."""
    if "weight.norm" not in run:
        return np.ones(len(taken.names), bool)
    table = run.table("weight.norm")
    sizes = [max(site.size, 1) for site in table.sites]
    first = dict(zip(table.names, table.values[0] / np.sqrt(sizes), strict=True))
    size = np.array([first.get(name, np.nan) for name in taken.names])
    with np.errstate(invalid="ignore"):
        return np.asarray(~(size < 0.1 * median(size, axis=0)))
