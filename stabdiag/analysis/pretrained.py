"""Whether a model was trained before the run began."""

from __future__ import annotations

import numpy as np

from stabdiag.analysis.guessing import guessing
from stabdiag.analysis.history import history
from stabdiag.core.run import Run

UNEVEN = 1.03
"""Largest over root mean square of a gain above which it has been trained: fresh gains are all alike, and
300 steps of training leave 1.05 to 1.13."""


def pretrained(run: Run) -> str | None:
    """What tells that the weights were not fresh at the first step, in words; None where nothing does.

    Gains of normalization layers begin as a constant, and no trained one is; a fresh classifier does not
    begin below the loss of guessing.
    """
    uneven = _unevenness(run)
    if uneven is not None and uneven > UNEVEN:
        return f"the gains of its normalization layers differed by {100 * (uneven - 1):.0f} % at the start"
    guess, loss = guessing(run), history(run, "run.loss").finite()
    if guess is not None and len(loss) and loss.values[0] < 0.8 * guess:
        return f"its first loss was {loss.values[0]:.2f}, where guessing costs {guess:.2f}"
    return None


def _unevenness(run: Run) -> float | None:
    """The median over the normalization layers, before the first step; None where that was not recorded."""
    if "normalization.gain" not in run:
        return None
    table = run.table("normalization.gain")
    if not len(table.steps) or table.steps[0] > 0:
        return None
    known = table.values[0][np.isfinite(table.values[0])]
    return float(np.median(known)) if known.size else None
