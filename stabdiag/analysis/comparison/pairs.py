"""The same series of two runs, at the same sites and steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.run import Floats, Run
from stabdiag.core.site import Site

MACHINE = ("memory", "reserved", "resident", "overhead", "tier")
"""Statistics of the run that tell of the machine and the recorder, as those do that end in `time`."""

REMEMBERED = ("attention", "curvature", "targets.constant", "targets.seen", "grad.dead")
"""Kinds and series that also go by what was looked at in the records before."""

FEW = 16
"""Common steps below which a series that was recorded at other steps in each run is interpolated."""

Steps = NDArray[np.int64]


@dataclass(frozen=True)
class Recorded:
    """What one run recorded of a series: `values` [steps, sites] in float32. NaN is what was not measured,
    infinite what was not finite."""

    steps: Steps
    values: Floats


@dataclass(frozen=True)
class Pair:
    """`a` and `b` [steps, sites] at the same steps; the rows of `own_a` and `own_b` are all that each run
    recorded there: the very arrays where that was at the same steps. `interpolated`: one of them lies
    between records."""

    series: str
    sites: tuple[Site, ...]
    twins: tuple[Site, ...]
    steps: Steps
    a: Floats
    b: Floats
    own_a: Recorded
    own_b: Recorded
    interpolated: bool = False

    @property
    def kind(self) -> str:
        return self.series.partition(".")[0]

    @property
    def statistic(self) -> str:
        return self.series.partition(".")[2]


def repeated_series(a: Run, b: Run) -> Iterator[str]:
    """Series of both runs that the same training repeats to the bit."""
    for series in a.series:
        kind, _, statistic = series.partition(".")
        timed = statistic.endswith(("time", "seconds")) or (kind == "run" and statistic in MACHINE)
        if series not in b or kind == "rank" or timed:
            continue
        if series == "batch.fingerprint" and not comparable_batches(a, b):
            continue
        alike = np.array_equal(a.kinds[kind].steps, b.kinds[kind].steps)
        if (series in REMEMBERED or kind in REMEMBERED) and not alike:
            continue
        yield series


def comparable_batches(a: Run, b: Run) -> bool:
    """A fingerprint is of the whole batch of a process, in its own type."""
    types = {site.name: site.dtype for site in b.sites("batch")}
    same = all(types.get(site.name, site.dtype) == site.dtype for site in a.sites("batch"))
    return same and a.info.world_size == b.info.world_size


def pair_of(a: Run, b: Run, series: str, *, exact: bool = False) -> Pair | None:
    """None where they have no site in common, or no step (near which both recorded, unless `exact`)."""
    table, twin = a.table(series), b.table(series)
    place = {name: i for i, name in enumerate(twin.names)}
    columns = [i for i, name in enumerate(table.names) if name in place]
    if not columns:
        return None
    others = [place[table.names[i]] for i in columns]
    own_a, own_b = _recorded(a, series, columns), _recorded(b, series, others)
    sites = tuple(table.sites[i] for i in columns)
    twins = tuple(twin.sites[i] for i in others)
    if len(own_a.steps) and np.array_equal(own_a.steps, own_b.steps):
        return Pair(series, sites, twins, own_a.steps, own_a.values, own_b.values, own_a, own_b)
    steps, rows_a, rows_b = np.intersect1d(own_a.steps, own_b.steps, return_indices=True)
    fewest = min(len(own_a.steps), len(own_b.steps))
    if not exact and len(steps) < min(FEW, fewest // 2):
        return _between(Pair(series, sites, twins, steps, own_a.values, own_b.values, own_a, own_b, True))
    if not len(steps):
        return None
    return Pair(series, sites, twins, steps, own_a.values[rows_a], own_b.values[rows_b], own_a, own_b)


def _recorded(run: Run, series: str, columns: list[int]) -> Recorded:
    table = run.table(series)
    values = np.ascontiguousarray(table.values, np.float32)
    every = columns == list(range(values.shape[1]))
    values = values if every else values[:, columns]
    kind, _, statistic = series.partition(".")
    flag = f"{kind}.nonfinite"
    # Of the run itself the flag speaks of its loss.
    if flag in run and flag != series and (kind != "run" or statistic == "loss"):
        nonfinite = run.table(flag).values > 0
        nonfinite = nonfinite if every else nonfinite[:, columns]
    else:
        nonfinite = np.zeros(values.shape, bool)
    nonfinite |= np.isinf(values)
    if nonfinite.any():
        values = np.where(nonfinite, np.float32(np.inf), values)
    taken = ~np.isnan(values).all(axis=1)
    return Recorded(table.steps, values) if taken.all() else Recorded(table.steps[taken], values[taken])


def _between(pair: Pair) -> Pair | None:
    """At the steps of the run that recorded fewer, with the other read between its records."""
    sparse_a = len(pair.own_a.steps) <= len(pair.own_b.steps)
    sparse, dense = (pair.own_a, pair.own_b) if sparse_a else (pair.own_b, pair.own_a)
    inside = (sparse.steps >= dense.steps[0]) & (sparse.steps <= dense.steps[-1])
    steps = sparse.steps[inside]
    if not len(steps):
        return None
    after = np.clip(np.searchsorted(dense.steps, steps), 1, max(len(dense.steps) - 1, 1))
    before, after = after - 1, np.minimum(after, len(dense.steps) - 1)
    gap = np.maximum(dense.steps[after] - dense.steps[before], 1)
    share = ((steps - dense.steps[before]) / gap).astype(np.float32)[:, None]
    with np.errstate(invalid="ignore"):
        low, high = dense.values[before], dense.values[after]
        read = np.where(share == 0, low, np.where(share == 1, high, low + share * (high - low)))
    given = sparse.values[inside]
    a, b = (given, read) if sparse_a else (read, given)
    return Pair(pair.series, pair.sites, pair.twins, steps, a, b, pair.own_a, pair.own_b, True)
