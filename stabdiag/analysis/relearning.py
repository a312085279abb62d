"""A loss that leaps at one step and comes down again as slowly as a model learns."""

from __future__ import annotations

import numpy as np

from stabdiag.analysis.history import History
from stabdiag.analysis.level_shift import SPAN, Shift
from stabdiag.analysis.robust import spread, trailing_median

NEXT = 5
"""Steps after a leap that tell whether it is over."""
SINGLE = (0.15, 1.25)
"""Where each of the three steps after it lies, as a share of the leap."""
RARE = 3.0
"""How many times the highest excursion before it a leap has to be."""


def relearning(series: History, *, z: float, least: float, left: float = 0.25) -> Shift | None:
    """The largest leap of finite `series` from one step to the next, by more than `z` deviations of the 25
    before, `least`, and three times what the series ever rose above its level, of which the median of the
    next five values is still `left` or more, and that of five later ones no higher. None where there is none.

    A bad batch is over at the next step: in 43 recordings nothing above 0.05 of the leap was left. What the
    model has to learn anew had 0.43 to 0.92 in 9.
    """
    values = series.values
    best: Shift | None = None
    rises = np.fmax.accumulate(np.append(0.0, values[SPAN:] - trailing_median(values, SPAN)[SPAN - 1 : -1]))
    for at in np.flatnonzero(np.diff(values) > 0.7 * least) + 1:
        if not SPAN <= at < len(values) - 2 * NEXT:
            continue
        past = values[at - SPAN : at]
        before = float(np.median(past))
        height, scale = float(values[at]) - before, max(spread(past), 1e-3 * abs(before))
        if height < max(z * scale, least, RARE * float(rises[at - SPAN])) or scale <= 0:
            continue
        rest = (values[at + 1 : at + 1 + 2 * NEXT] - before) / height
        soon, later = float(np.median(rest[:NEXT])), float(np.median(rest[NEXT:]))
        slow = soon >= left and later <= soon and SINGLE[0] <= rest[:3].min() <= rest[:3].max() <= SINGLE[1]
        if slow and values[at - 1] - before < 0.3 * height and (best is None or height > best.height):
            best = Shift(int(series.steps[at]), int(at), before, float(values[at]), height / scale)
    return best
