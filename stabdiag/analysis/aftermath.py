"""What the loss did after something had happened: whether a step that looks wrong had a consequence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.analysis.robust import Doubles, spread
from stabdiag.core.run import Run

BEFORE = 32
"""Steps that say what the loss was."""

LASTING, OF = 3, 5
"""Of so many steps in a row for how many it has to be up: one batch alone may be hard, and a loss that was
thrown up swings."""

HABIT = 3
"""Rises as high as another that make it nothing out of the ordinary."""


@dataclass(frozen=True)
class Aftermath:
    """`z`: by how many robust deviations the loss lay above what it was, at three of five steps;
    `share`: that height as a share of the progress made before, infinite where there was none; `regained`:
    whether the level at the end of the run is no higher than before; `level`: by how many standard errors
    the median of all steps looked at lay above what it was; `before`: how often the loss had risen so far
    until then, and come back."""

    z: float
    share: float
    regained: bool
    level: float = 0.0
    before: int = 0

    @property
    def bad(self) -> bool:
        """A rise that noise does not make, of a twentieth of the progress or more, and no habit, as in a task
        that is solved but for rare hard batches."""
        return self.z > 4.0 and self.share > 0.05 and self.before < HABIT

    @property
    def lost(self) -> bool:
        """A bad one that was not made good."""
        return self.bad and not self.regained


def aftermath(run: Run, step: int, reach: int = 20) -> Aftermath | None:
    """Of the `reach` steps from `step` on, against those before; None where the loss is not known well
    enough, or is that of opposed players."""
    curve = known_curve(run)
    return after(curve, step, reach) if curve is not None else None


def known_curve(run: Run) -> LossCurve | None:
    """The loss; None where it was not recorded, at too few steps, or is that of opposed players."""
    if "run.loss" not in run:
        return None
    try:
        curve = loss_curve(run, least=16)
    except NotEvaluable:
        return None
    return None if curve.several else curve


def after(curve: LossCurve, step: int, reach: int = 20) -> Aftermath | None:
    at = int(np.searchsorted(curve.steps, step))
    before = curve.values[max(at - BEFORE, 0) : at]
    before = before[np.isfinite(before)]
    later = np.nan_to_num(curve.values[at : at + reach], nan=np.inf)
    if len(before) < 8 or len(later) < OF:
        return None
    usual = float(np.median(before))
    sigma = max(spread(before), 0.003 * abs(usual), 1e-30)
    height = float(np.max(_lasting(later))) - usual
    progress = max(curve.start - usual, 0.0)
    share = height / progress if progress > 0 else float("inf")
    end = curve.values[-BEFORE // 2 :]
    regained = bool(np.isfinite(end).all() and np.median(end) <= usual + sigma)
    # Of medians of a normal variable, whose own is 1.25 that of the mean.
    error = 1.25 * sigma * math.sqrt(1 / len(before) + 1 / len(later))
    level = (float(np.median(later)) - usual) / error
    return Aftermath(height / sigma, share, regained, level, _rises(curve.values[:at], height))


def _lasting(values: Doubles) -> Doubles:
    """[..., steps - OF + 1]: what the loss was at `LASTING` of `OF` steps, at the least."""
    return np.asarray(np.sort(sliding_window_view(values, OF, axis=-1), axis=-1)[..., -LASTING])


def _rises(values: Doubles, height: float) -> int:
    """How often `values` have risen by `height` and more above the median of the `BEFORE` steps before, and
    had come back when as many steps had passed again."""
    parts = values[: len(values) // BEFORE * BEFORE].reshape(-1, BEFORE)
    if len(parts) < 3:
        return 0
    known, level = np.asarray(np.isfinite(parts).all(axis=1)), np.median(parts, axis=1)
    usual, then = level[:-2], level[2:]
    with np.errstate(invalid="ignore"):
        rose = np.max(np.nan_to_num(_lasting(parts[1:-1]), nan=np.inf), axis=1) - usual >= height
        back = height > then - usual
    return int(np.count_nonzero(rose & back & known[:-2] & known[2:]))


def followed(curve: LossCurve, step: int, reach: int, lead: int = 30) -> Aftermath | None:
    """`after`, where the loss had not risen in the `lead` steps before: None where it moved first."""
    led = after(curve, step - lead, lead)
    return None if led is not None and led.bad else after(curve, step, reach)


def still_falling(curve: LossCurve, step: int, since: int = 0) -> float:
    """By what share of the progress the loss fell over the last half of the steps from `since` to `step`; 0
    where that is within its noise, or below 1 %."""
    first, at = np.searchsorted(curve.steps, [since, step])
    fell, half, level = _fall(curve.values[(first + at) // 2 : at])
    progress = curve.start - level
    certain = fell > 3.0 * curve.noise / math.sqrt(max(half, 1)) and fell > 0.01 * progress > 0
    return fell / progress if certain else 0.0


def stopped_falling(curve: LossCurve, step: int, since: int = 0) -> float:
    """The same, where over as many steps from `step` on the loss fell by less than half of that."""
    first, at = np.searchsorted(curve.steps, [since, step])
    half = at - (first + at) // 2
    before, after_it = _fall(curve.values[at - half : at])[0], _fall(curve.values[at : at + half])[0]
    return still_falling(curve, step, since) if after_it < 0.5 * before else 0.0


def _fall(values: Doubles) -> tuple[float, int, float]:
    """From the median of the first half of `values` to that of the second, how many make a half, and the
    latter median; no fall below ten values."""
    known = values[np.isfinite(values)]
    half = len(known) // 2
    if half < 5:
        return 0.0, half, float("nan")
    level = float(np.median(known[half:]))
    return float(np.median(known[:half])) - level, half, level
