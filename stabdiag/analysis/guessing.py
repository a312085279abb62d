"""The loss of a model without an opinion, in the unit of the loss that the script trains on.

Torch's function may be summed over the batch, or scaled, before it is the loss of the run.
"""

from __future__ import annotations

import math

import numpy as np

from stabdiag.analysis.history import history
from stabdiag.core.run import Run

ONE = 0.02
"""How far the loss may move apart from torch's function, in the median step, while it is that and no more: a
balance loss of experts makes 0.6 %, a second term to be learned 5 % and more."""


def guessing(run: Run) -> float | None:
    """The loss of guessing one of the classes; None where the loss is no cross-entropy, or more than one."""
    classes = run.fact("loss", "classes")
    if not isinstance(classes, int | float) or classes <= 1:
        return None
    unit = _unit(run)
    return None if unit is None else math.log(classes) * unit


def constant_answer(run: Run) -> tuple[float, str]:
    """What the best answer that ignores the input costs, in the unit of the loss, and its name; NaN where
    that is not known."""
    loss, own = history(run, "run.loss"), history(run, "targets.loss").finite()
    constant = history(run, "targets.constant").finite()
    if len(constant) and len(own):
        trained = loss.values[np.isin(loss.steps, own.steps)]
        # Known for the function of torch alone: only where that is the whole loss can they be compared.
        if len(trained) == len(own) and np.nanmedian(np.abs(trained - own.values)) < 0.01 * np.median(
            own.values
        ):
            return float(constant.values[-1]), "a constant answer"
    if (guess := guessing(run)) is not None:
        return guess, f"guessing one of {run.fact('loss', 'classes'):,.0f} classes"
    return math.nan, ""


def _unit(run: Run) -> float | None:
    """The first loss of the run over that of torch's function in the mean of its samples; 1 where it is not
    known, None where they are not one number in two units."""
    whole, own = history(run, "run.loss").finite(), history(run, "targets.loss").finite()
    steps, at, there = np.intersect1d(whole.steps, own.steps, return_indices=True)
    if not len(steps) or not own.values[there[0]] > 0 or not whole.values[at[0]] > 0:
        return 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        units = whole.values[at] / own.values[there]
    units = units[np.isfinite(units)]
    apart = float(np.median(np.abs(units / np.median(units) - 1.0)))
    return float(units[0]) if apart <= ONE else None
