"""The extremes of a series over stretches of steps, in a little memory however long it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.run import Floats, Run
from stabdiag.render.curve import flag_of

Real = TypeVar("Real", np.float32, np.float64)
Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]
Join = Callable[[Floats, Flags], tuple[Floats, Flags]]
"""Values, NaN where not finite, and whether they are broken, both [rows, sites] -> the same of places that
are made of several sites."""

BLOCK = 4_000_000
"""Values that are looked at at once."""


@dataclass(frozen=True)
class Envelope:
    """`low` and `high`, [columns, places] in float32, are the extremes of the finite values from one of
    `steps` to before the next, NaN where there is none; `broken` tells where one was not finite."""

    steps: NDArray[np.int64]
    low: Floats
    high: Floats
    broken: Flags


def envelope(run: Run, series: str, columns: int, join: Join | None = None) -> Envelope:
    """Of the steps at which anything of the series was measured, in at most `columns` equal stretches."""
    measured = Measured(run, series, join)
    length = len(measured.rows)
    starts = np.unique(np.linspace(0, length, min(columns, length), endpoint=False).astype(np.intp))
    parts = []
    for group, end in _groups(starts, length, measured.height):
        values, broken = measured.block(measured.rows[group[0] : end])
        at = group - group[0]
        reduced = (
            np.fmin.reduceat(values, at),
            np.fmax.reduceat(values, at),
            np.logical_or.reduceat(broken, at),
        )
        parts.append(reduced)
    if not parts:
        parts = [(values, values, broken) for values, broken in [measured.block(measured.rows)]]
    low, high, broken = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Envelope(measured.steps[starts], low, high, broken)


def last_measured(run: Run, series: str, join: Join | None = None) -> Floats:
    """The last measured value of each place, NaN where that was not finite or there is none."""
    measured = Measured(run, series, join)
    width = measured.block(measured.rows[:0])[0].shape[1]
    blocks = (measured.block(measured.rows[a:b]) for a, b in _backwards(len(measured.rows), measured.height))
    return _last_known(
        ((values, np.isfinite(values) | broken) for values, broken in blocks), width, np.float32
    )


def last_values(values: Floats) -> NDArray[np.float64]:
    """The last finite value of each site of `values` [steps, sites]; NaN where there is none."""
    length, width = values.shape
    blocks = (np.asarray(values[a:b]) for a, b in _backwards(length, max(BLOCK // max(width, 1), 1)))
    return _last_known(((block, np.isfinite(block)) for block in blocks), width, np.float64)


def _last_known(blocks: Iterable[tuple[Floats, Flags]], width: int, dtype: type[Real]) -> NDArray[Real]:
    """Of each column the last value that is known, NaN where none is. The last of `blocks` comes first."""
    last, missing = np.full(width, np.nan, dtype), np.ones(width, bool)
    for values, known in blocks:
        found = missing & known.any(axis=0)
        at = len(values) - 1 - known[::-1].argmax(axis=0)
        last[found] = values[at, np.arange(width)][found]
        missing &= ~found
        if not missing.any():
            break
    return last


def _backwards(length: int, most: int) -> Iterator[tuple[int, int]]:
    """Blocks of rows from the end on: few at first, for there what is looked for mostly lies."""
    height, end = 64, length
    while end > 0:
        yield max(end - height, 0), end
        end -= height
        height = min(4 * height, most)


class Measured:
    """`rows` are those of a series in which anything was measured; no more than `height` are read at once."""

    def __init__(self, run: Run, series: str, join: Join | None = None) -> None:
        table = run.table(series)
        flag = flag_of(run, series)
        self._values = table.values
        self._flags = None if flag is None else run.table(flag).values
        self._join = join
        self.height = max(BLOCK // max(len(table.sites), 1), 1)
        everything = (slice(a, a + self.height) for a in range(0, len(table.steps), self.height))
        present = [self._present(rows) for rows in everything]
        self.rows: Rows = np.flatnonzero(np.concatenate([np.zeros(0, bool), *present]))
        self.steps: NDArray[np.int64] = table.steps[self.rows]

    def _present(self, rows: slice) -> Flags:
        present = np.asarray((~np.isnan(self._values[rows])).any(axis=1))
        if self._flags is not None and not present.all():
            present |= np.asarray((self._flags[rows] > 0).any(axis=1))
        return present

    def block(self, rows: Rows) -> tuple[Floats, Flags]:
        """Values, NaN where not finite, and where what was measured is not, both [rows, places]."""
        whole = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
        picked = slice(rows[0], rows[-1] + 1) if whole else rows
        values = np.array(self._values[picked], np.float32)
        finite = np.isfinite(values)
        broken = np.isinf(values)
        if not finite.all():
            if self._flags is not None:
                broken |= ~finite & (self._flags[picked] > 0)
            values[~finite] = np.nan
        return self._join(values, broken) if self._join else (values, broken)


def _groups(starts: Rows, length: int, height: int) -> Iterator[tuple[Rows, int]]:
    """Neighbouring stretches, by their first rows, and the row after them; of about `height` rows."""
    begin = 0
    while begin < len(starts):
        end = max(int(np.searchsorted(starts, starts[begin] + height)), begin + 1)
        yield starts[begin:end], int(starts[end]) if end < len(starts) else length
        begin = end
