"""Batches whose targets are more alike than a drawn sample of all targets would be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stabdiag.analysis.history import history
from stabdiag.core.run import Run

LEAST = 12
"""Batches that are needed to tell."""
ALIKE = 0.5
"""What the best constant answer to a batch costs at most, of what that to all costs. Both are corrected for
the size of a sample, so that batches which are drawn have 1 in the mean."""
PURE = 0.25
STUCK = 0.7
"""Of what a constant answer costs: a mean loss above it has learned little."""


class SortedData(NamedTuple):
    """`own` and `constant` are what the best constant answers to a batch and to all targets cost, `since` the
    first step at which they were known; `grave` where batches of labels are nearly pure, so that each makes
    the model forget the others, or the loss shows that it matters."""

    own: float
    constant: float
    since: int
    grave: bool


def sorted_data(run: Run) -> SortedData | None:
    """None where batches are mixed, or their targets were not recorded."""
    if "targets.own" not in run:
        return None
    own, constant = history(run, "targets.own"), history(run, "targets.constant")
    known = np.isfinite(own.values) & np.isfinite(constant.values)
    if known.sum() < LEAST:
        return None
    # What all vary by is known when all kinds have been seen.
    whole, each = float(constant.values[known].max()), float(np.median(own.values[known]))
    if not whole > 0 or each > ALIKE * whole:
        return None
    losses = history(run, "targets.loss").finite().values
    late = losses[len(losses) // 2 :]
    stuck = bool(len(late) and np.mean(late) > STUCK * whole)
    pure = each < PURE * whole and run.fact("loss", "classes") is not None
    return SortedData(each, whole, int(own.steps[known][0]), stuck or pure)
