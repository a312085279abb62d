"""Where two runs settle: what can be compared of runs that drew other weights or batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.comparison.apart import SAMPLED, SAMPLED_FLOOR, Apart, Tolerance
from stabdiag.analysis.comparison.pairs import Recorded
from stabdiag.analysis.robust import Doubles, median
from stabdiag.core.comparison import Level

LEAST = 8
"""Values of each run in its last half that a level takes at least."""

TAIL = 0.05
"""Share of the values on each side that the band of a run leaves out."""

FLOOR = 0.1
"""The least half-width of a band, as a share of the level: what two seeds differ by is not known from one
run of each."""


def levels(found: Apart, tolerance: Tolerance) -> Iterator[tuple[float, Level]]:
    """That of each site, with how far beyond each other's bands the two lie, in widths of both."""
    pair = found.pair
    last = int(pair.steps[-1])
    a, b = (_late(own, last // 2, last) for own in (pair.own_a, pair.own_b))
    if a is None or b is None:
        return
    (level_a, band_a), (level_b, band_b) = a, b
    late = pair.steps >= last // 2
    distances = np.where(np.isfinite(found.excess[late]), found.excess[late], np.nan)
    noise = median(distances, axis=0) if late.any() else np.full(len(pair.sites), np.nan)
    apart = np.abs(level_b - level_a)
    share = SAMPLED_FLOOR if tolerance.resampled and pair.kind in SAMPLED else FLOOR
    floor = share * np.maximum(np.abs(level_a), np.abs(level_b))
    width = np.maximum(band_a + band_b, floor)
    for column, site in enumerate(pair.sites):
        if np.isnan(apart[column]):
            continue
        beyond = apart[column] / width[column] if width[column] else np.inf * (apart[column] > 0)
        told = None if np.isnan(noise[column]) else float(noise[column])
        level = Level(
            series=pair.series,
            site=site.name,
            a=float(level_a[column]),
            b=float(level_b[column]),
            band_a=float(band_a[column]),
            band_b=float(band_b[column]),
            beyond=bool(beyond > 1),
            noise=told,
        )
        yield float(beyond), level


def _late(own: Recorded, first: int, last: int) -> tuple[Doubles, Doubles] | None:
    """Median and half-width of the band of each column; NaN where fewer than LEAST values are finite."""
    late = own.values[(own.steps >= first) & (own.steps <= last)]
    late = np.where(np.isfinite(late), late, np.nan)
    if len(late) < LEAST:
        return None
    ordered = np.sort(late, axis=0)  # NaN last
    count = np.sum(~np.isnan(late), axis=0)
    known = count >= LEAST
    low, high = (
        np.take_along_axis(ordered, np.round(share * np.maximum(count - 1, 0)).astype(int)[None], axis=0)[0]
        for share in (TAIL, 1 - TAIL)
    )
    return np.where(known, median(late, axis=0), np.nan), np.where(known, (high - low) / 2, np.nan)
