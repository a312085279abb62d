"""How long two runs are the same to the bit, and where they first differ at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from stabdiag.analysis.comparison.apart import Tolerance
from stabdiag.analysis.comparison.flow import Place, place_of
from stabdiag.analysis.comparison.pairs import Pair, pair_of, repeated_series
from stabdiag.analysis.comparison.parting import parting_of
from stabdiag.core.comparison import Parting
from stabdiag.core.run import Run

WHOLE = ("run", "batch", "initial", "weight", "grad", "update")


@dataclass(frozen=True)
class Bits:
    """`until` is the last step up to which every value that both recorded is the same, None where not even
    the first step is; `first` the first difference, `values` the number of values."""

    until: int | None
    first: Parting | None
    values: int


def same_bits(a: Run, b: Run, tolerance: Tolerance) -> Bits:
    """Over all series that the same training repeats; of runs that drew other samples of what flows through
    the model, only over what is of all of it."""
    values, last, found, began = 0, -1, [], []
    for series in repeated_series(a, b):
        if tolerance.resampled and series.partition(".")[0] not in WHOLE:
            continue
        pair = pair_of(a, b, series, exact=True)
        if pair is None:
            continue
        both = ~np.isnan(pair.a) & ~np.isnan(pair.b)
        values += int(both.sum())
        last = max(last, int(pair.steps[-1]))
        began += pair.steps[both.any(axis=1)][:1].tolist()
        found += list(_first(pair, both))
    place, first = min(found, key=lambda one: one[0], default=(None, None))
    if place is None or first is None:
        return Bits(last if values else None, None, values)
    until = first.step - 1 if first.step > min(began) else None
    return Bits(until, replace(first, within=-1 if until is None else until), values)


def _first(pair: Pair, both: np.ndarray) -> Iterator[tuple[Place, Parting]]:
    """The most upstream of the sites that differ first."""
    different = both & (pair.a != pair.b)
    rows = np.flatnonzero(different.any(axis=1))
    if not len(rows):
        return
    row = int(rows[0])
    step = int(pair.steps[row])
    for column in np.flatnonzero(different[row]):
        site = pair.sites[column]
        yield place_of(pair.series, site, step), parting_of(pair, different, row, int(column))
