"""What is told of one site of a pair, where it parts."""

from __future__ import annotations

import numpy as np

from stabdiag.analysis.comparison.pairs import Pair
from stabdiag.analysis.robust import Flags
from stabdiag.core.comparison import Parting


def parting_of(
    pair: Pair,
    apart: Flags,
    row: int,
    column: int,
    *,
    within: int | None = None,
    excess: float | None = None,
) -> Parting:
    """That of `column`, which is first `apart` ([steps, sites]) in `row`. `within` is the last step together,
    by default that of the row before."""
    site = pair.sites[column]
    before = int(pair.steps[row - 1]) if row else -1
    return Parting(
        series=pair.series,
        site=site.name,
        step=int(pair.steps[row]),
        within=before if within is None else within,
        until=int(pair.steps[np.flatnonzero(apart[:, column])[-1]]),
        a=float(pair.a[row, column]),
        b=float(pair.b[row, column]),
        excess=excess,
        module_type=site.module_type,
        source=site.source,
        sites=int(apart.any(axis=0).sum()),
        of=len(pair.sites),
    )
