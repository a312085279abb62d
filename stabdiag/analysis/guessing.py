"""The loss of a classifier without an opinion, in the unit of the loss that the script trains on.

Torch's function may be summed over the batch, or scaled, before it is the loss of the run.
"""

from __future__ import annotations

import math

import numpy as np

from stabdiag.analysis.history import history
from stabdiag.core.run import Run


def guessing(run: Run) -> float | None:
    """The loss of guessing one of the classes; None where the loss is no cross-entropy."""
    classes = run.fact("loss", "classes")
    if not isinstance(classes, int | float) or classes <= 1:
        return None
    return math.log(classes) * _unit(run)


def _unit(run: Run) -> float:
    """The first loss of the run over that of torch's function in the mean of its samples; 1 where it is not
    known."""
    whole, own = history(run, "run.loss").finite(), history(run, "targets.loss").finite()
    steps, at, there = np.intersect1d(whole.steps, own.steps, return_indices=True)
    if not len(steps) or not own.values[there[0]] > 0 or not whole.values[at[0]] > 0:
        return 1.0
    return float(whole.values[at[0]] / own.values[there[0]])
