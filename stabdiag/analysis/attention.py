"""Attention as a table: layers, their heads, and which of them was how at which step."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.core.run import Run, Table

HEAD = re.compile(r"^(.*)\[h\d+\]$")


@dataclass(frozen=True)
class Layers:
    """A statistic of attention at the steps at which any was measured: of layers [steps, layers], in forward
    order, and of their heads [steps, heads], of which the n-th belongs to layer `owner[n]`. A layer of one
    head stands for it."""

    steps: NDArray[np.int64]
    names: tuple[str, ...]
    values: NDArray[np.float64]
    heads: tuple[str, ...]
    of_heads: NDArray[np.float64]
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
    values = table.values[rows].astype(np.float64)
    owner = np.array([place[owners[i] or table.names[i]] for i in heads], np.int64)
    names, head_names = tuple(table.names[i] for i in layers), tuple(table.names[i] for i in heads)
    return Layers(table.steps[rows], names, values[:, layers], head_names, values[:, heads], owner)


def earlier(steps: NDArray[np.int64], reach: int) -> NDArray[np.int64]:
    """For each position that of the last step at least `reach` before it; the one just before where the
    record is coarser or does not go back as far; 0 for the first."""
    at = np.searchsorted(steps, steps - reach, side="right") - 1
    return np.maximum(np.where(at < 0, 0, np.minimum(at, np.arange(len(steps)) - 1)), 0)


def matching(run: Run, series: str, like: Layers) -> NDArray[np.float64]:
    """Another statistic of the same layers at the same steps; NaN where it was not measured."""
    nothing = np.full(like.values.shape, np.nan)
    if series not in run:
        return nothing
    table: Table = run.table(series)
    place = {name: i for i, name in enumerate(table.names)}
    rows = np.searchsorted(table.steps, like.steps)
    columns = [place[name] for name in like.names]
    return np.asarray(table.values[rows][:, columns], np.float64)
