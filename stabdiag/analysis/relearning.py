"""A loss that leaps at one step and comes down again as slowly as a model learns."""

from __future__ import annotations

import numpy as np

from stabdiag.analysis.history import History
from stabdiag.analysis.level_shift import SPAN, Shift
from stabdiag.analysis.robust import Doubles, spread, trailing_median

NEXT = 5
"""Steps after a leap that tell whether it is over."""
LEFT = (0.25, 1.25)
"""Where each of the three steps after it lies, as a share of the leap."""
STILL = 0.1
"""What is left of it in the five steps after the next five, at the least: a spike of a few steps is over."""
RARE = 3.0
"""How many times the highest excursion before it a leap has to be."""
LOGARITHMS = 4.0
"""Deviations of the logarithm, where there is one: small losses scatter by factors."""


def relearning(series: History, *, z: float, least: float) -> Shift | None:
    """The largest leap of finite `series` from one step to the next, by more than `z` deviations of the 25
    before, `least`, and three times what the series ever rose above its level, of which a quarter and more is
    left at each of the next three steps, and a tenth after five, no more than before. None where none is.

    A bad batch is over at the next step: in 43 recordings nothing above 0.15 of the leap was left. What the
    model has to learn anew had 0.38 and more in 9.
    """
    values = series.values
    best: Shift | None = None
    rises = np.fmax.accumulate(np.append(0.0, values[SPAN:] - trailing_median(values, SPAN)[SPAN - 1 : -1]))
    for at in np.flatnonzero(np.diff(values) > 0.7 * least) + 1:
        if not SPAN <= at < len(values) - 2 * NEXT:
            continue
        past = values[at - SPAN : at]
        before, scale = float(np.median(past)), _scale(past)
        height = float(values[at]) - before
        if height < max(z * scale, least, RARE * float(rises[at - SPAN])) or scale <= 0:
            continue
        if past.min() > 0 and np.log(values[at] / before) < LOGARITHMS * _scale(np.log(past)):
            continue
        rest = (values[at + 1 : at + 1 + 2 * NEXT] - before) / height
        slow = LEFT[0] <= rest[:3].min() <= rest[:3].max() <= LEFT[1]
        falls = STILL <= np.median(rest[NEXT:]) <= np.median(rest[:NEXT])
        if slow and falls and (best is None or height > best.height):
            best = Shift(int(series.steps[at]), int(at), before, float(values[at]), height / scale)
    return best


def _scale(past: Doubles) -> float:
    return max(spread(past), 1e-3 * abs(float(np.median(past))))
