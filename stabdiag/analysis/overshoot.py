"""Whether the steps before a rise of the loss were too long: their size, the curvature, and what the
gradient did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabdiag.analysis.anatomy import gradient_slope
from stabdiag.analysis.batches import outlier
from stabdiag.analysis.depth import telling
from stabdiag.analysis.history import history
from stabdiag.analysis.updates import updates
from stabdiag.core.run import Run


@dataclass(frozen=True)
class LongSteps:
    """The stretch of steps from `first` on that changed the weight matrices by more than a level, in the
    median; the largest was `ratio` at step `peak`, most in `sites`."""

    first: int
    peak: int
    ratio: float
    sites: tuple[str, ...]


def long_steps(run: Run, onset: int, level: float, reach: int = 20, ahead: int = 2) -> LongSteps | None:
    """Those around `onset`, from `reach` steps before it to `ahead` after. One alone does not count, nor does
    the very first, in which Adam's update is the learning rate itself."""
    if "update.ratio" not in run:
        return None
    taken = updates(run)
    above = np.nan_to_num(taken.middle, nan=0.0, posinf=np.inf) > level
    around = (taken.steps >= max(onset - reach, 1)) & (taken.steps <= onset + ahead)
    near = np.flatnonzero(above & around)
    if not near.size:
        return None
    last = int(near[-1])
    short = np.flatnonzero(~above[:last])
    first = int(short[-1]) + 1 if short.size else 0
    if last == first and np.count_nonzero(around) > 2:
        return None
    first = max(first, int(np.searchsorted(taken.steps, onset - 10 * reach)))
    peak = first + int(np.argmax(taken.middle[first : last + 1]))
    sites = telling(taken.names, taken.ratio[peak])
    return LongSteps(int(taken.steps[first]), int(taken.steps[peak]), float(taken.middle[peak]), sites)


def sharpness(run: Run, onset: int, reach: int = 200) -> tuple[int, float] | None:
    """The step and value of the largest curvature, over what the optimizer is stable at, up to `onset`."""
    return history(run, "curvature.sharpness_ratio").peak(onset - reach, onset + 5)


def turning(run: Run, onset: int, reach: int = 10) -> float | None:
    """The median cosine of gradients in a row around `onset`: below 0 where each step overshoots."""
    seen = history(run, "run.grad_cosine").within(onset - reach, onset + reach).finite().values
    return float(np.median(seen)) if len(seen) >= 3 else None


def began_elsewhere(run: Run, onset: int) -> bool:
    """Whether a batch of unusual values, or gradients that already grew layer by layer before the first
    update, came before the steps were long."""
    batches = (outlier(run, step) for step in range(max(onset - 10, 0), onset + 1))
    slope = gradient_slope(run, 0, reach=1)
    steep = slope is not None and slope.straightness > 0.5 and abs(slope.per_layer) > 0.3
    return steep or any(batch is not None and batch.multiple > 5 for batch in batches)
