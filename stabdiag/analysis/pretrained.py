"""Whether a model was trained before the run began."""

from __future__ import annotations

import numpy as np

from stabdiag.analysis.draws import drawn
from stabdiag.analysis.guessing import guessing
from stabdiag.analysis.history import history
from stabdiag.analysis.initial import never_initialized
from stabdiag.core.run import Run

UNEVEN = 1.03
"""Largest over root mean square of a gain above which it has been trained: fresh gains are all alike, and
300 steps of training leave 1.05 to 1.13."""

SHARE = 1 / 3
"""Of the matrices that no initialization draws: of a whole model's that was trained, most are."""


def pretrained(run: Run) -> str | None:
    """What tells that the weights were not fresh at the first step, in words; None where nothing does.

    Gains of normalization layers begin as a constant, and no trained one is; those that are drawn at random
    (DCGAN) have shifts that are zero. A fresh classifier does not begin below the loss of guessing. The
    largest element of a drawn matrix is bound to its rms, and that of a trained one to nothing.
    """
    uneven = _unevenness(run)
    if uneven is not None and uneven > UNEVEN:
        return f"the gains of its normalization layers differed by {100 * (uneven - 1):.0f} % at the start"
    guess, loss = guessing(run), history(run, "run.loss").finite()
    if guess is not None and len(loss) and loss.values[0] < 0.8 * guess:
        return f"its first loss was {loss.values[0]:.2f}, where guessing costs {guess:.2f}"
    matrices = list(drawn(run).values())
    other = matrices.count(False)
    if other >= 2 and other > SHARE * len(matrices) and never_initialized(run) is None:
        return f"no initialization draws what {other} of its {len(matrices)} matrices held at the start"
    return None


def _unevenness(run: Run) -> float | None:
    """The median over the normalization layers, before the first step; None where that was not recorded, or
    their shifts are all zero."""
    if "normalization.gain" not in run:
        return None
    table = run.table("normalization.gain")
    if not len(table.steps) or table.steps[0] > 0 or _shifts_nothing(run, set(table.names)):
        return None
    known = table.values[0][np.isfinite(table.values[0])]
    return float(np.median(known)) if known.size else None


def _shifts_nothing(run: Run, layers: set[str]) -> bool:
    """Whether `layers` have biases, and all began at zero."""
    if "initial.absmax" not in run:
        return False
    table = run.table("initial.absmax")
    biases = [
        i for i, site in enumerate(table.sites) if site.module in layers and site.name.endswith(".bias")
    ]
    return bool(biases) and bool((table.values[:1, biases] == 0).all())
