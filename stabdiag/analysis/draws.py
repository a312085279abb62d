"""Whether weights still are what an initialization drew."""

from __future__ import annotations

import math

import numpy as np

from stabdiag.analysis.initial import LINEAR
from stabdiag.analysis.memory import once
from stabdiag.core.run import Run
from stabdiag.core.site import Site

LEAST = 1000
"""Elements from which on the largest of a draw is bound closely enough."""

RARE = 1e-4
"""How seldom a draw may leave its bounds, to either side."""

BOUNDED = (math.sqrt(3.0), 2.274, 3.042)
"""Largest over root mean square of a uniform draw, and of normal ones cut at two and three deviations."""


def is_draw(crest: float, size: int) -> bool:
    """Whether `crest`, the largest of `size` elements over their root mean square, is that of a uniform, a
    normal or a truncated normal draw; orthogonal matrices are like normal ones."""
    below = size * math.log1p(-math.erfc(crest / math.sqrt(2.0)))  # log probability of no larger one
    if math.log(RARE) < below < math.log1p(-RARE):
        return True
    # The rms of few is not that of many, and the largest falls short of the bound.
    over, short = 2.0 / math.sqrt(size), 40.0 / size
    return any(-over - short < crest / bound - 1.0 < over for bound in BOUNDED)


@once
def drawn(run: Run) -> dict[Site, bool]:
    """Of the matrices of linear layers and convolutions that hold `LEAST` elements or more and hardly a zero:
    whether they began as a draw. Whatever its scale, the largest element of a draw is bound to its rms;
    training moves a few elements far."""
    if "initial.rms" not in run or "initial.absmax" not in run or "initial.zeros" not in run:
        return {}
    table = run.table("initial.rms")
    if not len(table.steps):
        return {}
    rows = (run.table(f"initial.{name}").values[0] for name in ("absmax", "rms", "zeros"))
    absmax, rms, zeros = (row.astype(np.float64) for row in rows)
    return {
        site: is_draw(float(absmax[i] / rms[i]), site.size)
        for i, site in enumerate(table.sites)
        if site.module_type in LINEAR and len(site.shape) > 1 and site.size >= LEAST
        and 0 < rms[i] < math.inf and math.isfinite(absmax[i]) and zeros[i] < 0.01
    }  # fmt: skip
