"""Whether a model was trained before the run began."""

from __future__ import annotations

import math

import numpy as np

from stabdiag.analysis.history import history
from stabdiag.core.run import Run

UNEVEN = 1.1
"""Largest over root mean square of a gain above which it has been trained: fresh gains are all alike."""


def pretrained(run: Run) -> str | None:
    """What tells that the weights were not fresh at the first record, in words; None where nothing does.

    Gains of normalization layers begin as a constant, and no trained one is; a fresh classifier does not
    begin below the loss of guessing.
    """
    uneven = _unevenness(run)
    if uneven is not None and uneven > UNEVEN:
        return f"the gains of its normalization layers differed by {100 * (uneven - 1):.0f} % at the start"
    classes, loss = run.fact("loss", "classes"), history(run, "run.loss").finite()
    if isinstance(classes, int) and classes > 1 and len(loss) and loss.values[0] < 0.8 * math.log(classes):
        return f"its first loss was {loss.values[0]:.2f}, where guessing costs {math.log(classes):.2f}"
    return None


def _unevenness(run: Run) -> float | None:
    """Median over the normalization layers of the largest gain over its root mean square, at the first
    record, less what the updates since the start can have made of it."""
    if "weight.norm" not in run or "weight.absmax" not in run:
        return None
    table, largest = run.table("weight.norm"), run.table("weight.absmax")
    if not len(table.steps) or table.steps[0] > 5:
        return None
    found = []
    for i, site in enumerate(table.sites):
        gain = "Norm" in site.module_type and len(site.shape) == 1 and site.name.endswith("weight")
        rms = float(table.values[0, i]) / math.sqrt(max(site.size, 1))
        if gain and site.size >= 8 and rms > 1e-3:
            moved = _moved(run, site.name, int(table.steps[0]))
            found.append(float(largest.values[0, i]) / rms - 4 * moved / math.sqrt(site.size) / rms)
    return float(np.median(found)) if found else None


def _moved(run: Run, name: str, step: int) -> float:
    """Norm of what the recorded updates up to `step` may have added up to."""
    norms = history(run, "update.norm", name).within(0, step).finite()
    return float(np.max(norms.values)) * (step + 1) if len(norms) else 0.0
