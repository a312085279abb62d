"""What moved first: the statistic that left its own healthy band before all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.bands import Bands, bands
from stabdiag.analysis.robust import Doubles, Flags
from stabdiag.analysis.step_size import schedule
from stabdiag.core.diagnosis import FirstMover
from stabdiag.core.run import Run
from stabdiag.core.site import Site

WATCHED: Mapping[str, tuple[str, ...]] = {
    "batch": ("absmax", "rms"),
    "output": ("rms", "absmax", "zeros"),
    "attention": ("max_logit", "entropy"),
    "router": ("load", "entropy"),
    "logits": ("log_z", "max", "entropy"),
    "output_grad": ("rms",),
    "grad": ("norm",),
    "optimizer": ("rms", "step", "cosine", "eps_share"),
    "update": ("ratio",),
    "weight": ("norm",),
}
"""The statistics that are asked, in the order in which a training step makes their kinds."""

STAGE: Mapping[str, int] = {kind: stage for stage, kind in enumerate(WATCHED)} | {
    # Made together by the forward pass: the order of its places decides.
    "attention": 1,
    "output": 1,
    "router": 1,
    "logits": 1,
}
BACKWARD = ("output_grad", "grad")
"""Kinds in which a fault travels from the loss to the input, so that the later place is upstream."""

LINEAR = ("zeros", "cosine", "eps_share", "load")
"""Statistics that may be zero or change their sign, so that their logarithm says nothing."""

REFERENCE, LEAST = 64, 6
"""Records that make up the healthy past, and how few of them say nothing."""

REACH = 50
"""Steps before the onset, or a fifth of them all where that is more, in which the first mover is sought."""

LEAVES, MOVES = 1.5, 3.0
"""Half-widths of its band beyond which a value has left it, and which a column has to reach to be a mover
at all: with thousands of columns some stray by chance."""

FLOOR, LOSS_FLOOR = 0.1, 0.02
"""The least half-width, as a share of the level."""


class Stretch(NamedTuple):
    """Rows of a table that lie outside their band: the first, the last inside before it."""

    first: int
    inside: int


@dataclass(frozen=True)
class Departure:
    """A column that left its band, and the step at which it seems to have crossed the edge."""

    series: str
    site: Site
    step: int
    within: int
    crossed: int
    value: float
    band: tuple[float, float]

    @property
    def place(self) -> tuple[int, int, int, str]:
        """Sorts the first mover first: by time, then by the flow of a training step."""
        kind = self.site.kind
        order = self.site.order if self.site.order >= 0 else 10**9
        return self.crossed, STAGE.get(kind, 0), -order if kind in BACKWARD else order, self.series


def first_mover(run: Run, onset: int, until: int, lost: int | None = None) -> FirstMover | None:
    """The first to leave its band for an incident that began about `onset` and was worst at `until`.

    `lost` is the step since which the loss shows it, where that is known. None where the run has too
    short a past before the onset, or nothing that is watched moved.
    """
    until = min(until, onset + max(REACH, onset // 5))
    loss = next(_departures(run, "run", "loss", onset, until, LOSS_FLOOR), None)
    moved = [
        d for kind, names in WATCHED.items() for s in names for d in _departures(run, kind, s, onset, until)
    ]
    moved += _run_moves(run, onset, until)
    first = min(moved, key=lambda d: d.place, default=None)
    if loss is not None and (first is None or loss.step <= first.within):
        first = loss
    if first is None:
        return None
    since = loss.step if lost is None and loss is not None else lost
    lead = None if since is None else since - first.step
    return FirstMover(first.series, first.site.name, first.step, first.within, first.value, first.band, lead)


def _run_moves(run: Run, onset: int, until: int) -> Iterator[Departure]:
    """The learning rate where it jumps; the norm of all gradients; the loss scale where it falls."""
    site = Site("run", "run")
    abrupt = schedule(run).jump(max(onset - REACH, 1), onset)
    if abrupt is not None:
        step, before, after = abrupt
        yield Departure("run.lr", site, step, step - 1, step, after, (before, before))
    for statistic in ("grad_norm", "loss_scale"):
        for departure in _departures(run, "run", statistic, onset, until):
            if statistic == "grad_norm" or departure.value < departure.band[0]:
                yield departure


def _departures(
    run: Run, kind: str, statistic: str, onset: int, until: int, floor: float = FLOOR
) -> Iterator[Departure]:
    """The columns of a series that had left their bands when the incident was on."""
    series = f"{kind}.{statistic}"
    if series not in run:
        return
    table = run.table(series)
    rows = _rows(table.steps, onset, until)
    if rows is None or not table.sites:
        return
    past, now = rows
    columns = slice(0, 1) if kind == "run" else slice(None)
    broken = _broken(run, kind, now, columns)
    values: Doubles = np.where(broken, np.inf, table.values[now, columns]).astype(np.float64)
    taken = ~np.isnan(values).all(axis=1)
    values, steps = values[taken], table.steps[now][taken]
    if not len(steps):
        return
    band = bands(
        table.values[past, columns],
        table.steps[past],
        values,
        steps,
        least=LEAST,
        floor=floor,
        linear=statistic in LINEAR,
    )
    excess = np.where(np.isnan(values) | np.isnan(band.high), 0.0, band.excess)
    since = int(np.searchsorted(steps, onset - int(np.max(np.diff(steps), initial=1))))
    peaks = np.nanmax(excess[since:], axis=0, initial=0.0)
    for column in np.flatnonzero(peaks >= (LEAVES if kind == "run" else MOVES)):
        stretch = _stretch(excess[:, column] >= LEAVES, since + int(np.argmax(excess[since:, column])))
        if stretch is not None:
            yield _departure(series, table.sites[column], steps, values[:, column], band, column, stretch)


def _rows(steps: NDArray[np.int64], onset: int, until: int) -> tuple[slice, slice] | None:
    """The healthy past, and what is searched: from some way before the onset to where it was worst."""
    begin = int(np.searchsorted(steps, onset))
    reach = begin - int(np.searchsorted(steps, onset - max(REACH, onset // 5)))
    start = begin - min(reach, begin // 3)
    # One record beyond: a sparse series may have been taken only after the worst step.
    end = int(np.searchsorted(steps, until, side="right")) + 1
    if start < LEAST or end <= begin:
        return None
    return slice(max(start - REFERENCE, 0), start), slice(start, end)


def _broken(run: Run, kind: str, rows: slice, columns: slice) -> Flags | bool:
    series = f"{kind}.nonfinite"
    return run.table(series).values[rows, columns] > 0 if series in run and kind != "run" else False


def _stretch(outside: Flags, peak: int) -> Stretch | None:
    """The unbroken stretch outside the band that leads to `peak`. None where it was never inside before:
    then its past was no measure for it."""
    inside = np.flatnonzero(~outside[: peak + 1])
    return Stretch(int(inside[-1]) + 1, int(inside[-1])) if len(inside) else None


def _departure(
    series: str,
    site: Site,
    steps: NDArray[np.int64],
    values: Doubles,
    band: Bands,
    column: np.intp,
    stretch: Stretch,
) -> Departure:
    """What is far outside may have left right after the record before; what is barely outside has only
    just left."""
    first, inside = stretch
    crossed = int(steps[inside]) + 1 if band.excess[first, column] >= MOVES else int(steps[first])
    edges = float(band.low[first, column]), float(band.high[first, column])
    return Departure(
        series, site, int(steps[first]), int(steps[inside]), crossed, float(values[first]), edges
    )
