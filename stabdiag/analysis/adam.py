"""What the recorder saw of the optimizer's state, a column a weight matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.run import Floats, Run
from stabdiag.core.site import Site

UNSETTLED = 50
"""Steps of a fresh state in which its statistics are those of few gradients."""


@dataclass(frozen=True)
class Moments:
    """Series of kind `optimizer` at recorded `steps` (int64, [n]) of weight `sites`: [n, sites], NaN where
    nothing was measured, or no number."""

    steps: NDArray[np.int64]
    sites: tuple[Site, ...]
    values: dict[str, Floats]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.sites)

    def __getitem__(self, statistic: str) -> Floats:
        return self.values[statistic]


def matrices(run: Run, statistic: str) -> list[int]:
    """Which sites of `optimizer.<statistic>` are trained weight matrices: vectors hold few coordinates, and
    most of what is unusual in healthy runs. Raises MissingSeries."""
    sites = run.table(f"optimizer.{statistic}").sites
    return [i for i, site in enumerate(sites) if len(site.shape) != 1 and site.trainable]


def moments(run: Run, *statistics: str, above: tuple[str, float, int] | None = None) -> Moments:
    """Of the weight matrices, in steps in which the state was not young: at the start, or after it was lost.
    Raises MissingSeries.

    `above`, as (statistic, bound, times), leaves only those matrices where it is above the bound at as many
    steps: of a large model most are never looked at.
    """
    tables = {name: run.table(f"optimizer.{name}") for name in statistics}
    first, chosen = next(iter(tables.values())), matrices(run, statistics[0])
    if above is not None:
        name, bound, times = above
        often = np.count_nonzero(run.table(f"optimizer.{name}").values > bound, axis=0) >= times
        chosen = [i for i in chosen if often[i]]
    kept = ages_at(run, first.steps) > UNSETTLED
    values = {name: _finite(table.values[:, chosen][kept]) for name, table in tables.items()}
    return Moments(first.steps[kept], tuple(first.sites[i] for i in chosen), values)


def _finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def ages_at(run: Run, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many steps the state had seen at each of `steps`: as recorded, else since the run began."""
    begun = steps.astype(np.float64) + 1.0
    if "run.optimizer_age" not in run:
        return begun
    table = run.table("run.optimizer_age")
    known = np.isfinite(table.first())
    if not known.any():
        return begun
    at = np.searchsorted(table.steps[known], steps, side="right") - 1
    ages = table.first()[known].astype(np.float64)[np.maximum(at, 0)]
    return np.where(at >= 0, ages, begun)
