"""The rows of several processes, laid over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.run import Floats, KindData
from stabdiag.core.site import Site
from stabdiag.store.rules import Stack

Steps = NDArray[np.int64]


class Rows:
    """What one process recorded of a kind, in the columns of `names`, NaN where it has none."""

    def __init__(self, data: KindData, names: Sequence[str]) -> None:
        self.data = data
        self._width = len(names)
        own = [site.name for site in data.sites]
        self._same = own == list(names)
        place = {name: index for index, name in enumerate(names)}
        pairs = [(place[name], index) for index, name in enumerate(own) if name in place]
        self._to, self._from = np.array(pairs, np.intp).reshape(-1, 2).T

    def take(self, statistic: str, steps: Steps) -> Floats:
        """[steps, names]; a view of the file where it holds just these rows and columns."""
        values = self.data.values.get(statistic)
        if values is None or not len(self.data.steps):
            return np.full((len(steps), self._width), np.nan, np.float32)
        own = self.data.steps
        start = int(np.searchsorted(own, steps[0])) if len(steps) else 0
        run = own[start : start + len(steps)]
        if len(run) == len(steps) and (run == steps).all():
            part = values[start : start + len(steps)]
            return part if self._same else self._spread(part)
        at = np.minimum(np.searchsorted(own, steps), len(own) - 1)
        found = self._spread(values[at])
        found[own[at] != steps] = np.nan
        return found

    def _spread(self, part: Floats) -> Floats:
        spread = np.full((len(part), self._width), np.nan, np.float32)
        spread[:, self._to] = part[:, self._from]
        return spread


class Aligned:
    """A kind of several processes, by rank, over the union of their sites."""

    def __init__(self, data: Mapping[int, KindData]) -> None:
        self.ranks = tuple(data)
        self.names = tuple(dict.fromkeys(site.name for rows in data.values() for site in rows.sites))
        self.statistics = tuple(dict.fromkeys(name for rows in data.values() for name in rows.values))
        self._data = data
        self._rows = {rank: Rows(own, self.names) for rank, own in data.items()}
        self._described = {rank: {s.name: s for s in own.sites} for rank, own in data.items()}

    def sites_of(self, name: str) -> dict[int, Site]:
        """Rank -> how it described the site, of those that recorded it."""
        return {number: known[name] for number, known in self._described.items() if name in known}

    def steps_after(self, step: int) -> tuple[Steps, NDArray[np.float64]]:
        """The union of the steps above `step`, and when the lowest rank that has each recorded it."""
        parts = [
            (d.steps, d.times, int(np.searchsorted(d.steps, step, "right"))) for d in self._data.values()
        ]
        steps = np.concatenate([steps[at:] for steps, _, at in parts])
        times = np.concatenate([times[at:] for _, times, at in parts])
        union, where = np.unique(steps, return_index=True)  # the first occurrence: of the lowest rank
        return union, times[where]

    def steps_of(self, rank: int) -> Steps:
        return self._data[rank].steps

    def final(self, settled: int, late: int) -> int:
        """The last step that is `settled` rows behind the slowest rank, or `late` behind the fastest; -1
        where there is none."""
        slow, fast = (
            [int(data.steps[-behind]) for data in self._data.values() if len(data.steps) >= behind]
            for behind in (settled, late)
        )
        return max(min(slow) if len(slow) == len(self._data) else -1, max(fast, default=-1))

    def columns(self, names: Sequence[str]) -> NDArray[np.intp]:
        """Where these names are; one that is not known is one beyond the last."""
        place = {name: index for index, name in enumerate(self.names)}
        return np.array([place.get(name, len(place)) for name in names], np.intp)

    def stack(
        self,
        statistic: str,
        steps: Steps,
        ranks: Sequence[int] | None = None,
        columns: NDArray[np.intp] | None = None,
    ) -> Stack:
        """[ranks, steps, columns] in float64, of all ranks and columns where none are named. What a rank
        did not record is NaN."""
        ranks = self.ranks if ranks is None else ranks
        width = len(self.names)
        everything = columns is None or (len(columns) == width and (columns == np.arange(width)).all())
        stack: Stack = np.full((len(ranks), len(steps), width if columns is None else len(columns)), np.nan)
        for index, number in enumerate(ranks):
            if number in self._rows:
                values = self._rows[number].take(statistic, steps)
                if everything:
                    stack[index] = values
                elif columns is not None:
                    known = columns < width
                    stack[index][:, known] = values[:, columns[known]]
        return stack
