"""What moved first: the statistic that left its own healthy band before all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.bands import bands
from stabdiag.analysis.precedence import BACKWARD
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
    **dict.fromkeys(("output", "attention", "router", "logits"), 1),
    "run.lr": -1,
    "run.loss_scale": -1,
    "run.grad_norm": list(WATCHED).index("grad"),
}

LINEAR = ("zeros", "cosine", "eps_share", "load")
"""Statistics that may be zero or change their sign, so that their logarithm says nothing."""

REFERENCE, LEAST = 64, 6
"""Records that make up the healthy past, and how few of them say nothing."""

REACH, RECORDS = 50, 256
"""Steps before the onset, or a fifth of them all where that is more, in which the first mover is sought,
and the most records of a series that are."""

LEAVES, MOVES = 1.5, 3.0
"""Half-widths of its band beyond which a value has left it, and which a column has to reach to be a mover
at all: with thousands of columns some stray by chance."""

FLOOR, LOSS_FLOOR = 0.1, 0.02
"""The least half-width, as a share of the level."""


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
        stage = STAGE[self.series if self.site.kind == "run" else self.site.kind]
        return self.crossed, stage, _flow(self.site), self.series


def first_mover(run: Run, onset: int, until: int, lost: int | None = None) -> FirstMover | None:
    """The first to leave its band for an incident that began about `onset` and was worst at `until`.

    `lost` is the step since which the loss shows it, where that is known. None where the run has too
    short a past before the onset, or nothing that is watched moved.
    """
    until = min(until, onset + max(REACH, onset // 5))
    loss = _departure(run, "run", "loss", onset, until, LOSS_FLOOR)
    each = (_departure(run, kind, name, onset, until) for kind, names in WATCHED.items() for name in names)
    moved = [*filter(None, each), *_run_moves(run, onset, until)]
    first = min(moved, key=lambda d: d.place, default=None)
    if loss is not None and (first is None or loss.step <= first.within):
        first = loss
    if first is None:
        return None
    seen = [step for step in (lost, loss.step if loss else None) if step is not None]
    lead = min(seen) - first.step if seen else None
    return FirstMover(first.series, first.site.name, first.step, first.within, first.value, first.band, lead)


def _run_moves(run: Run, onset: int, until: int) -> Iterator[Departure]:
    """The learning rate where it jumps; the norm of all gradients; the loss scale where it falls."""
    abrupt = _abrupt(run, max(onset - REACH, 1), onset)
    if abrupt is not None:
        step, before, after = abrupt
        yield Departure("run.lr", Site("run", "run"), step, step - 1, step, after, (before, before))
    for statistic in ("grad_norm", "loss_scale"):
        departure = _departure(run, "run", statistic, onset, until)
        if departure and (statistic == "grad_norm" or departure.value < departure.band[0]):
            yield departure


def _abrupt(run: Run, first: int, last: int) -> tuple[int, float, float] | None:
    """The step at which the learning rate turns negative or else jumps, the rate before and after."""
    plan = schedule(run)
    near = plan.rate.within(first - 1, last)
    turned = np.flatnonzero((near.values[1:] < 0) & (near.values[:-1] >= 0))
    if not len(turned):
        return plan.jump(first, last)
    at = int(turned[0]) + 1
    return int(near.steps[at]), float(near.values[at - 1]), float(near.values[at])


def _departure(
    run: Run, kind: str, statistic: str, onset: int, until: int, floor: float = FLOOR
) -> Departure | None:
    """The first column of a series that had left its band when the incident was on."""
    series = f"{kind}.{statistic}"
    if series not in run:
        return None
    table = run.table(series)
    rows = _rows(table.steps, onset, until)
    if rows is None or not table.sites:
        return None
    past, now = rows
    columns = slice(0, 1) if kind == "run" else slice(None)
    broken = _broken(run, kind, statistic, now, columns)
    values: Doubles = np.where(broken, np.inf, table.values[now, columns]).astype(np.float64)
    taken = ~np.isnan(values).all(axis=1)
    values, steps = values[taken], table.steps[now][taken]
    if not len(steps):
        return None
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
    moved = np.flatnonzero(peaks >= (LEAVES if kind == "run" else MOVES))
    if not len(moved):
        return None
    first, inside = _stretches(excess[:, moved], since)
    # What is far outside may have left right after the record before; what is barely outside has only
    # just left. What was never inside before had a past that was no measure for it.
    far = np.take_along_axis(excess[:, moved], first[None, :], axis=0)[0] >= MOVES
    crossed = np.where(far, steps[inside] + 1, steps[first])
    orders = np.array([_flow(table.sites[column]) for column in moved])
    best = np.lexsort((orders, crossed, inside < 0))[0]
    if inside[best] < 0:
        return None
    column, at = int(moved[best]), int(first[best])
    return Departure(
        series,
        table.sites[column],
        int(steps[at]),
        int(steps[inside[best]]),
        int(crossed[best]),
        float(values[at, column]),
        (float(band.low[at, column]), float(band.high[at, column])),
    )


def _flow(site: Site) -> int:
    """Position along the way of the pass that makes its kind; what never ran comes last."""
    order = site.order if site.order >= 0 else 10**9
    return -order if site.kind in BACKWARD else order


def _stretches(excess: Doubles, since: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of each column the unbroken stretch outside its band that leads to its worst row from `since` on: the
    first row, and the last one inside before it, -1 where there is none."""
    rows = np.arange(len(excess))[:, None]
    worst = since + np.argmax(excess[since:], axis=0)
    within = (excess < LEAVES) & (rows <= worst)
    inside = np.max(np.where(within, rows, -1), axis=0)
    return inside + 1, inside


def _rows(steps: NDArray[np.int64], onset: int, until: int) -> tuple[slice, slice] | None:
    """The healthy past, and what is searched: from some way before the onset to where it was worst."""
    begin = int(np.searchsorted(steps, onset))
    reach = begin - int(np.searchsorted(steps, onset - max(REACH, onset // 5)))
    start = begin - max(min(reach, begin // 3, RECORDS), 1)
    # One record beyond: a sparse series may have been taken only after the worst step.
    end = min(int(np.searchsorted(steps, until, side="right")) + 1, begin + RECORDS)
    if start < LEAST or end <= begin:
        return None
    return slice(max(start - REFERENCE, 0), start), slice(start, end)


def _broken(run: Run, kind: str, statistic: str, rows: slice, columns: slice) -> Flags | bool:
    """Where the value was not finite; of the run itself that is known of its loss."""
    series = f"{kind}.nonfinite"
    if series not in run or (kind == "run" and statistic != "loss"):
        return False
    return run.table(series).values[rows, columns] > 0
