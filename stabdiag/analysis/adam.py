"""What the recorder saw of the state of Adam's family, a column a weight matrix."""

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


def moments(run: Run, *statistics: str, settled: bool = True) -> Moments:
    """Of the weight matrices: vectors hold few coordinates, and most of what is unusual in healthy runs.

    `settled` leaves out the steps in which the state was young, at the start and wherever it was lost.
    Raises MissingSeries.
    """
    tables = {name: run.table(f"optimizer.{name}") for name in statistics}
    first = next(iter(tables.values()))
    chosen = [i for i, site in enumerate(first.sites) if len(site.shape) != 1 and site.trainable]
    kept = ages_at(run, first.steps) > UNSETTLED if settled else np.ones(len(first.steps), dtype=bool)
    values = {name: _finite(table.values[kept][:, chosen]) for name, table in tables.items()}
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


def epsilon(run: Run) -> float | None:
    """Adam's term that keeps the division finite."""
    groups = run.fact("optimizer", "groups") or [{}]
    value = groups[0].get("eps") if isinstance(groups[0], dict) else None
    return float(value) if isinstance(value, int | float) else None
