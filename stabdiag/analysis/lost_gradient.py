"""Whether the gradient has died while the loss stayed where it began: it depends on no parameter any more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabdiag.analysis.consequence import while_finite
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.analysis.robust import Doubles
from stabdiag.core.run import MissingSeries, Run

SPAN = 25
"""Steps over which a level of the loss is a median."""

FIRST = 5
"""Records over which the first level of the gradient is a median, and that make it one that stays low."""


@dataclass(frozen=True)
class LostGradient:
    """The gradient norm over all parameters left its first level, `norm`, at step `falls`, and was at `share`
    of it from step `low` to step `last`, by medians; the loss had been `began`, and was never below `lowest`.
    """

    falls: int
    low: int
    last: int
    share: float
    norm: float
    began: float
    lowest: float


def lost_gradient(run: Run, fallen: float, kept: float, persists: float) -> LostGradient | None:
    """None unless the gradient fell to `fallen` of its first level and stayed there for `persists` steps, up
    to the end, while the loss stayed above `kept` of where it began. A loss that is not above 0 at first has
    no such share, and is never above it."""
    run = while_finite(run)
    try:
        curve = loss_curve(run, least=2 * SPAN)
    except (NotEvaluable, MissingSeries):
        return None
    levels = _levels(curve.values)
    if curve.several or not np.min(levels) > kept * levels[0]:
        return None
    table = run.table("grad.norm")
    columns = [i for i, site in enumerate(table.sites) if site.optimized]
    norms = table.values[:, columns].astype(np.float64)
    # What a gradient scaler withholds, and what was not measured, is no gradient.
    known = np.isfinite(norms).any(axis=1) & ~np.isinf(norms).any(axis=1) if columns else np.zeros(0, bool)
    whole, steps = np.sqrt(np.nansum(norms[known] ** 2, axis=1)), table.steps[known]
    if len(whole) < 2 * FIRST:
        return None
    first = float(np.median(whole[:FIRST]))
    high = np.flatnonzero(whole > fallen * first)
    at = int(high[-1]) + 1 if len(high) else 0
    # A gradient that died within its first records has no first level that it could have left.
    alive = first > fallen * whole[:FIRST].max()
    if not alive or len(whole) - at < FIRST or steps[-1] - steps[at] < persists:
        return None
    falls = int(steps[int(np.flatnonzero(whole >= first)[-1]) + 1])
    share = float(np.median(whole[at:])) / first
    began, lowest = float(levels[0]), float(np.min(levels))
    return LostGradient(falls, int(steps[at]), int(steps[-1]), share, first, began, lowest)


def _levels(values: Doubles) -> Doubles:
    """Medians of `SPAN` finite values in a row."""
    finite = values[np.isfinite(values)]
    whole = len(finite) // SPAN
    return np.median(finite[: whole * SPAN].reshape(whole, SPAN), axis=1) if whole else np.full(1, np.nan)
