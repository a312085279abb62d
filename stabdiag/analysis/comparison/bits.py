"""How long two runs are the same to the bit, and where they first differ at all."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stabdiag.analysis.comparison.apart import Tolerance
from stabdiag.analysis.comparison.flow import Place, place_of
from stabdiag.analysis.comparison.pairs import Pair, Steps, pair_of, repeated_series
from stabdiag.analysis.comparison.parting import parting_of
from stabdiag.analysis.robust import Flags
from stabdiag.core.comparison import Parting
from stabdiag.core.run import Run

WHOLE = ("run", "batch", "initial", "weight", "grad", "update")
TOTALLED = ("run.grad_norm", "run.clipped_grad_norm")
"""Whether they are added up by the recorder, and in which order, goes by how much of the step it recorded."""


@dataclass(frozen=True)
class Bits:
    """`until` is the last step at which both recorded something and up to which all of it is the same, None
    where not even the first is; `first` the first difference, `values` the number of values."""

    until: int | None
    first: Parting | None
    values: int


def same_bits(a: Run, b: Run, tolerance: Tolerance) -> Bits:
    """Over all series that the same training repeats; of runs that drew other samples of what flows through
    the model, only over what is of all of it."""
    values, found = 0, []
    compared: list[Steps] = []
    for series in repeated_series(a, b):
        if tolerance.resampled and series.partition(".")[0] not in WHOLE:
            continue
        pair = pair_of(a, b, series, exact=True)
        if pair is None:
            continue
        both = ~np.isnan(pair.a) & ~np.isnan(pair.b)
        if series in TOTALLED:
            both &= _alike(a, b, pair.steps)
        values += int(both.sum())
        compared.append(pair.steps[both.any(axis=1)])
        different = _first(pair, both)
        found += [different] if different else []
    first = min(found, key=lambda one: one[0])[1] if found else None
    same = [steps if first is None else steps[steps < first.step] for steps in compared]
    until = max((int(steps[-1]) for steps in same if len(steps)), default=None)
    if first is None:
        return Bits(until, None, values)
    return Bits(until, replace(first, within=-1 if until is None else until), values)


def _alike(a: Run, b: Run, steps: Steps) -> Flags:
    """Whether both recorded the same tier at `steps`, [steps, 1]."""
    if "run.tier" not in a or "run.tier" not in b:
        return np.ones((len(steps), 1), bool)
    tables = (a.table("run.tier"), b.table("run.tier"))
    of_a, of_b = (table.first()[np.searchsorted(table.steps, steps)] for table in tables)
    alike: Flags = (of_a == of_b)[:, None]
    return alike


def _first(pair: Pair, both: Flags) -> tuple[Place, Parting] | None:
    """The most upstream of the sites that differ first."""
    different = both & (pair.a != pair.b)
    rows = np.flatnonzero(different.any(axis=1))
    if not len(rows):
        return None
    row = int(rows[0])
    step = int(pair.steps[row])
    columns = [int(column) for column in np.flatnonzero(different[row])]
    places = [place_of(pair.series, pair.sites[column], step) for column in columns]
    place = min(places)
    return place, parting_of(pair, different, row, columns[places.index(place)])
