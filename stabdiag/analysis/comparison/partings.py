"""The first place of each series at which two runs part beyond their own noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.comparison.apart import FAR, Apart, Tolerance, apart
from stabdiag.analysis.comparison.flow import Place, place_of
from stabdiag.analysis.comparison.pairs import pair_of
from stabdiag.analysis.comparison.parting import parting_of
from stabdiag.analysis.first_mover import WATCHED
from stabdiag.core.comparison import Parting
from stabdiag.core.run import Run

OF_THE_RUN = ("loss", "grad_norm", "loss_scale")
UNTOLD = ("optimizer.eps_share",)
"""A gradient that is zero but for rounding lies below epsilon or not by chance."""


def watched(a: Run, b: Run) -> Iterator[str]:
    """The series that are held against each other, as far as both have measured them."""
    for kind, statistics in (*WATCHED.items(), ("run", OF_THE_RUN), ("evaluation", ("loss",))):
        for statistic in statistics:
            series = f"{kind}.{statistic}"
            # With respect to the outputs of a process the gradient is that of its own samples' loss.
            apart = kind == "output_grad" and a.info.world_size != b.info.world_size
            if series not in UNTOLD and not apart and _measured(a, series) and _measured(b, series):
                yield series


def _measured(run: Run, series: str) -> bool:
    return series in run and not bool(np.isnan(run.table(series).values).all())


def held(a: Run, b: Run, series: str, tolerance: Tolerance) -> Apart | None:
    """None where they cannot be held against each other: no common site, no step."""
    pair = pair_of(a, b, series)
    return None if pair is None else apart(pair, tolerance)


def first_parting(found: Apart, together: int) -> tuple[Place, Parting] | None:
    """The most upstream site that parts first; `together` is the last step at which nothing differs."""
    beyond, pair = found.beyond, found.pair
    parted = np.flatnonzero(beyond.any(axis=0))
    if not len(parted):
        return None
    rows = np.argmax(beyond[:, parted], axis=0)
    crossings = (
        (_crossing(found, int(row), int(column), together), int(row), int(column))
        for row, column in zip(rows, parted, strict=True)
    )
    place, within, row, column = min(
        (place_of(pair.series, pair.sites[column], crossed), within, row, column)
        for (crossed, within), row, column in crossings
    )
    excess = float(found.excess[row, column])
    return place, parting_of(pair, beyond, row, column, within=within, excess=excess)


def _crossing(found: Apart, row: int, column: int, together: int) -> tuple[int, int]:
    """The step at which the site that is first apart in `row` seems to have parted, and the last one at
    which it was not."""
    steps, before = found.pair.steps, found.excess[:row, column]
    inside = np.flatnonzero(before < 1)
    within, step = int(steps[inside[-1]]) if len(inside) else -1, int(steps[row])
    if together < step:
        within = max(within, together)
    # What lies far apart may have parted right after the record before; what barely does has only just.
    return (within + 1 if found.excess[row, column] >= FAR else step), within
