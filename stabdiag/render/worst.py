"""The sites that are furthest from what is usual for them, at the last step that saw them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stabdiag.core.run import Run
from stabdiag.render.curve import flag_of
from stabdiag.render.numbers import number

HISTORY = 100
"""Recorded steps that tell what is usual, at most."""

LEAST = 5
"""And at least."""


@dataclass(frozen=True)
class Standing:
    """`usual` is the median of the values before; `ratio` is the value over it, NaN where not finite."""

    site: str
    module: str
    series: str
    value: float
    usual: float

    @property
    def ratio(self) -> float:
        return self.value / self.usual if self.usual else math.nan

    @property
    def distance(self) -> float:
        """Of the logarithm, infinite for a value that is not finite."""
        return abs(math.log(self.ratio)) if self.ratio > 0 and math.isfinite(self.ratio) else math.inf

    @property
    def words(self) -> str:
        """`4.1 × its usual: 12.3`."""
        if not math.isfinite(self.value):
            return f"{number(self.value)}, usually {number(self.usual)}"
        return f"{number(float(f'{self.ratio:.2g}'))} × its usual: {number(self.value)}"


def worst(run: Run, series: Iterable[str], most: int) -> list[Standing]:
    """At most `most`, one a module, the furthest first."""
    furthest: dict[str, Standing] = {}
    for standing in sorted((s for name in series for s in _standings(run, name)), key=lambda s: -s.distance):
        furthest.setdefault(standing.module, standing)
    return list(furthest.values())[:most]


def _standings(run: Run, series: str) -> Iterator[Standing]:
    if series not in run:
        return
    table = run.table(series)
    values = table.values[-HISTORY - 1 :].astype(np.float64)
    measured = ~np.isnan(values)
    flag = flag_of(run, series)
    if flag is not None:
        measured |= run.table(flag).values[-HISTORY - 1 :] > 0
    # Of the first steps all is far from where it settles.
    late = values[len(values) // 2 : -1]
    before = np.where(np.isfinite(late), late, np.nan)
    enough = np.isfinite(before).sum(axis=0) >= LEAST
    for column in np.flatnonzero(enough & measured[-1:].any(axis=0)):
        site, usual = table.sites[column], float(np.nanmedian(before[:, column]))
        if usual > 0 and values[-1, column] != 0:
            yield Standing(site.name, site.module, series, float(values[-1, column]), usual)
