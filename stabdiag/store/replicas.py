"""Whether the copies of a parameter are still the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stabdiag.store.align import Aligned, Steps
from stabdiag.store.rules import Stack

STATISTICS = ("fingerprint", "differs", "odd_rank", "nonfinite")


def compared(rows: Aligned, steps: Steps) -> Mapping[str, Stack]:
    """Kind `replica` of several ranks, each value [steps, sites]:

    fingerprint  of most of the copies
    differs      ranks whose copy is another than that of most
    odd_rank     the lowest of these, NaN where all agree. Where as many say this as that, the copy of the
                 lowest rank counts as right
    nonfinite    0 wherever a copy was looked at

    Copies are of the same part, where a parameter is cut. Where only one copy was looked at, there was
    nothing to differ from: NaN.
    """
    prints = rows.stack("fingerprint", steps)
    parts = np.full((len(rows.ranks), len(rows.names)), -1)
    for column, name in enumerate(rows.names):
        for position, rank in enumerate(rows.ranks):
            site = rows.sites_of(name).get(rank)
            parts[position, column] = -1 if site is None else site.part
    usual = np.full(prints.shape[1:], np.nan)
    beside = np.zeros(prints.shape[1:], bool)
    odd = np.zeros(prints.shape, bool)
    for part in np.unique(parts[parts >= 0]):
        copies = np.where((parts == part)[:, None], prints, np.nan)
        held = ~np.isnan(copies)
        agreeing = np.stack([(copies == copy).sum(axis=0) for copy in copies])
        right = np.take_along_axis(copies, agreeing.argmax(axis=0)[None], axis=0)[0]
        usual = np.where(np.isnan(usual), right, usual)
        odd |= held & (copies != right)
        beside |= held.sum(axis=0) > 1
    ranks = np.array(rows.ranks, np.float64)[:, None, None]
    lowest = np.where(odd, ranks, np.inf).min(axis=0)
    return {
        "fingerprint": usual,
        "differs": np.where(beside, odd.sum(axis=0), np.nan),
        "odd_rank": np.where(np.isinf(lowest), np.nan, lowest),
        "nonfinite": np.where(np.isnan(usual), np.nan, 0.0),
    }
