"""What the loss did after something had happened: whether a step that looks wrong had a consequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.analysis.robust import spread
from stabdiag.core.run import Run

BEFORE = 32
"""Steps that say what the loss was."""

LASTING = 3
"""Steps for which it has to be up: one batch alone may be hard."""


@dataclass(frozen=True)
class Aftermath:
    """`z`: by how many robust deviations the loss lay above what it was, for three steps in a row;
    `share`: that height as a share of the progress made before, infinite where there was none; `regained`:
    whether the level at the end of the run is no higher than before."""

    z: float
    share: float
    regained: bool

    @property
    def bad(self) -> bool:
        """A rise that noise does not make, of a twentieth of the progress or more."""
        return self.z > 4.0 and self.share > 0.05

    @property
    def lost(self) -> bool:
        """A bad one that was not made good."""
        return self.bad and not self.regained


def aftermath(run: Run, step: int, reach: int = 20) -> Aftermath | None:
    """Of the `reach` steps from `step` on, against those before; None where the loss is not known well
    enough, or is that of opposed players."""
    if "run.loss" not in run:
        return None
    try:
        curve = loss_curve(run, least=16)
    except NotEvaluable:
        return None
    return None if curve.several else after(curve, step, reach)


def after(curve: LossCurve, step: int, reach: int = 20) -> Aftermath | None:
    at = int(np.searchsorted(curve.steps, step))
    before = curve.values[max(at - BEFORE, 0) : at]
    before = before[np.isfinite(before)]
    later = np.nan_to_num(curve.values[at : at + reach], nan=np.inf)
    if len(before) < 8 or len(later) < LASTING:
        return None
    usual = float(np.median(before))
    sigma = max(spread(before), 0.003 * abs(usual), 1e-30)
    # The least of three in a row is a height that lasts.
    lasting = np.min([later[i : len(later) - LASTING + 1 + i] for i in range(LASTING)], axis=0)
    height = float(np.max(lasting)) - usual
    progress = max(curve.start - usual, 0.0)
    share = height / progress if progress > 0 else float("inf")
    end = curve.values[-BEFORE // 2 :]
    regained = bool(np.isfinite(end).all() and np.median(end) <= usual + sigma)
    return Aftermath(height / sigma, share, regained)
