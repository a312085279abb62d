"""A curve in one line of text."""

from __future__ import annotations

import numpy as np

from stabdiag.render.curve import Curve
from stabdiag.render.downsample import spans_decades

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-~=+*#"


def sparkline(curve: Curve, width: int = 40, *, ascii_only: bool = False) -> str:
    """At most `width` characters, the highest value of a stretch of steps each, `×` where one was not finite.

    Heights are logarithmic where the curve spans decades.
    """
    if not len(curve.values):
        return ""
    levels, broken = (ASCII, "x") if ascii_only else (BLOCKS, "×")
    heights = np.log(curve.values) if spans_decades(curve.values) else curve.values
    stretches = np.array_split(heights, min(width, len(heights)))
    peaks = np.array([s.max() for s in stretches])
    finite = peaks[np.isfinite(peaks)]
    if not len(finite):
        return broken * len(peaks)
    low, high = finite.min(), finite.max()
    scale = (len(levels) - 1) / (high - low) if high > low else 0.0
    return "".join(levels[round((p - low) * scale)] if np.isfinite(p) else broken for p in peaks)
