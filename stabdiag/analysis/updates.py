"""How much of its weight each layer replaces in a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.memory import once
from stabdiag.analysis.robust import Doubles, median
from stabdiag.core.run import Floats, Run


@dataclass(frozen=True)
class Updates:
    """`ratio` [steps, matrices] of update over weight norm, NaN where a matrix was not updated, and
    `middle` [steps], its median over the matrices."""

    steps: NDArray[np.int64]
    names: tuple[str, ...]
    ratio: Floats
    middle: Doubles


@once
def updates(run: Run) -> Updates:
    """The recorded steps at which the optimizer stepped, and the weight matrices.

    Vectors are left out, and matrices that began at zero, whose first ratios are huge: both say
    nothing of the step size. A matrix that did not change counts only where none did. Raises
    MissingSeries.
    """
    table = run.table("update.ratio")
    nonzero = ~_began_at_zero(run)
    chosen = [
        i for i, site in enumerate(table.sites) if site.trainable and len(site.shape) != 1 and nonzero[i]
    ]
    stepped = ~np.isin(table.steps, skipped_steps(run))
    rows = table.values if stepped.all() else table.values[stepped]
    values = rows[:, chosen] if chosen else np.empty((len(rows), 0), np.float32)
    values[~np.isfinite(values)] = np.nan
    moved = (values > 0).any(axis=1, keepdims=True)
    values[moved & (values == 0)] = np.nan
    names = tuple(table.sites[i].name for i in chosen)
    middle = median(values, axis=1) if chosen else np.full(len(values), np.nan)
    return Updates(table.steps[stepped], names, values, middle)


def skipped_steps(run: Run) -> NDArray[np.int64]:
    """The steps that a gradient scaler withheld."""
    if "run.skipped" not in run:
        return np.empty(0, np.int64)
    table = run.table("run.skipped")
    return table.steps[table.first() > 0]


def _began_at_zero(run: Run) -> NDArray[np.bool_]:
    """[sites]: whether the weight had changed, but had no norm to divide by, when first recorded."""
    ratio = run.table("update.ratio").values[:1]
    if "update.norm" not in run or not len(ratio):
        return np.zeros(ratio.shape[1], dtype=bool)
    return np.asarray(~np.isfinite(ratio[0]) & (run.table("update.norm").values[0] > 0))
