"""Whether two runs were given the same: initial weights, schedule, batches. These have no noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.comparison.apart import Tolerance
from stabdiag.analysis.comparison.pairs import Pair, comparable_batches, pair_of
from stabdiag.analysis.comparison.parting import parting_of
from stabdiag.analysis.robust import Flags
from stabdiag.core.comparison import Parting
from stabdiag.core.run import Run
from stabdiag.core.site import Site

SETTINGS = ("run.lr", "run.samples", "run.tokens", "run.micro_batches")
INITIAL = ("initial.rms", "initial.absmax")
LEAST = 1e-5
"""Relative difference below which settings are the same number, computed differently."""


def given(a: Run, b: Run, tolerance: Tolerance) -> Iterator[tuple[Site, Parting]]:
    """What each run was given and the other was not, with its first step, one for each series."""
    for series in INITIAL:
        yield from _parted(_pair(a, b, series), max(tolerance.epsilon, LEAST))
    for series in SETTINGS:
        yield from _parted(_pair(a, b, series), LEAST)
    if comparable_batches(a, b):
        yield from _parted(_pair(a, b, "batch.fingerprint"), 0.0)


def is_drawn(parting: Parting, first_step: int) -> bool:
    """Whether it makes the runs two draws, with nothing in common but their settings."""
    return parting.series.startswith(("initial.", "batch.")) and parting.step <= first_step


def _pair(a: Run, b: Run, series: str) -> Pair | None:
    return pair_of(a, b, series, exact=True) if series in a and series in b else None


def _parted(pair: Pair | None, share: float) -> Iterator[tuple[Site, Parting]]:
    if pair is None:
        return
    with np.errstate(invalid="ignore"):
        different: Flags = np.abs(pair.b - pair.a) > share * np.fmax(np.abs(pair.a), np.abs(pair.b))
    rows = np.flatnonzero(different.any(axis=1))
    if not len(rows):
        return
    row = int(rows[0])
    column = int(np.argmax(different[row]))
    yield pair.sites[column], parting_of(pair, different, row, column)
