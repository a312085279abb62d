"""Batches whose targets are more alike than a random draw of all targets would be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stabdiag.analysis.history import history
from stabdiag.core.run import Run

LEAST = 12
"""Batches that are needed to tell."""
ALIKE = 0.5
"""What the targets of a batch vary by at most, of what all of them do: batches that are drawn have 1 in the
mean, whatever their size and however rare a class is."""
CERTAIN = 4.0
"""Standard errors of that mean."""
PURE = 0.25
"""Where labels vary by no more, each batch makes the model forget the others."""
STUCK = 0.7
"""Of what a constant answer costs: a mean loss above it has learned little."""


class SortedData(NamedTuple):
    """`own` and `whole` are the mean variety of a batch's targets and that of all, `since` the first step at
    which they were known; `grave` where batches of labels are nearly pure, or the loss shows that it
    matters."""

    own: float
    whole: float
    since: int
    grave: bool


def sorted_data(run: Run) -> SortedData | None:
    """None where batches are mixed, or where it is not known how much their targets vary."""
    if "targets.variety" not in run:
        return None
    own, whole = history(run, "targets.variety"), history(run, "targets.variety_seen").finite()
    known = own.finite()
    if len(known) < LEAST or not len(whole):
        return None
    mean, everything = float(np.mean(known.values)), float(whole.values[-1])
    error = float(np.std(known.values)) / float(np.sqrt(len(known)))
    if mean > ALIKE * everything or everything - mean <= CERTAIN * error:
        return None
    losses, constant = history(run, "targets.loss").finite(), history(run, "targets.constant").finite()
    late = losses.values[len(losses) // 2 :]
    stuck = bool(len(late) and len(constant) and np.mean(late) > STUCK * constant.values[-1])
    pure = mean < PURE * everything and run.fact("loss", "classes") is not None
    return SortedData(mean, everything, int(known.steps[0]), stuck or pure)
