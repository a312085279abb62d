"""Attention as a table: layers, their heads, and which of them was how at which step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.core.run import Floats, Run

HEAD = re.compile(r"^(.*)\[h\d+\]$")


@dataclass(frozen=True)
class Layers:
    """A statistic of attention at the steps at which any was measured: of layers [steps, layers], in forward
    order, and of their heads [steps, heads], of which the n-th belongs to layer `owner[n]`. A layer of one
    head stands for it. Float32 as recorded, and no copy where that can be."""

    steps: NDArray[np.int64]
    names: tuple[str, ...]
    values: Floats
    heads: tuple[str, ...]
    of_heads: Floats
    owner: NDArray[np.int64]

    def hottest(self, layer: int, row: int, *, largest: bool) -> tuple[str, ...]:
        """The head of `layer` with the largest (or least) value at `row`, nothing where it has no heads."""
        mine = np.flatnonzero((self.owner == layer) & np.isfinite(self.of_heads[row]))
        if not mine.size or self.heads[mine[0]] == self.names[layer]:
            return ()
        values = self.of_heads[row, mine]
        return (self.heads[mine[int(np.argmax(values) if largest else np.argmin(values))]],)


def attention_layers(run: Run, series: str) -> Layers:
    """Raises MissingSeries, and NotEvaluable where no step holds a number."""
    table = run.table(series)
    owners = [match.group(1) if (match := HEAD.match(name)) else None for name in table.names]
    order = np.argsort([site.order for site in table.sites], kind="stable")
    layers = [int(i) for i in order if owners[i] is None]
    place = {table.names[i]: n for n, i in enumerate(layers)}
    heads = [i for i, owner in enumerate(owners) if owner in place]
    alone = [i for i in layers if table.names[i] not in {owners[h] for h in heads}]
    heads += alone
    rows = ~np.isnan(table.values).all(axis=1) if layers else np.zeros(len(table.steps), bool)
    if not rows.any():
        raise NotEvaluable(f"{series} was measured at no step")
    at = np.flatnonzero(rows)
    owner = np.array([place[owners[i] or table.names[i]] for i in heads], np.int64)
    names, head_names = tuple(table.names[i] for i in layers), tuple(table.names[i] for i in heads)
    values, of_heads = _taken(table.values, at, layers), _taken(table.values, at, heads)
    return Layers(table.steps[rows], names, values, head_names, of_heads, owner)


def _taken(values: Floats, rows: NDArray[np.intp], columns: Sequence[int]) -> Floats:
    """Of a table that may be larger than the memory: itself where all of it is asked for."""
    some = values if len(rows) == len(values) else values[rows]
    return some if list(columns) == list(range(values.shape[1])) else some[:, columns]


def earlier(steps: NDArray[np.int64], reach: int) -> NDArray[np.int64]:
    """For each position that of the last step at least `reach` before it; the one just before where the
    record is coarser or does not go back as far; 0 for the first."""
    at = np.searchsorted(steps, steps - reach, side="right") - 1
    return np.maximum(np.where(at < 0, 0, np.minimum(at, np.arange(len(steps)) - 1)), 0)


def matching(run: Run, series: str, like: Layers) -> Floats:
    """Another statistic of the same layers at the same steps; NaN where it was not measured."""
    if series not in run:
        return np.broadcast_to(np.float32(np.nan), like.values.shape)
    table = run.table(series)
    place = {name: i for i, name in enumerate(table.names)}
    rows = np.searchsorted(table.steps, like.steps)
    return _taken(table.values, rows, [place[name] for name in like.names])
