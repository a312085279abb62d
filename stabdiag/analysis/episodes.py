"""Episodes: flagged steps that belong together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class Episode:
    """Positions in a series, all included: the first and the last flagged, the largest between them,
    and how many were flagged."""

    first: int
    peak: int
    last: int
    count: int


def episodes(flagged: ArrayLike, values: ArrayLike, *, gap: int = 20) -> list[Episode]:
    """The episodes of `flagged`, [n]: one ends when more than `gap` unflagged positions follow.

    `values`, [n], give each episode its peak; NaN is never one unless all are.
    """
    at = np.flatnonzero(np.asarray(flagged))
    if not at.size:
        return []
    heights = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=-np.inf)
    parts = np.split(at, np.flatnonzero(np.diff(at) > gap + 1) + 1)
    return [
        Episode(int(part[0]), int(part[np.argmax(heights[part])]), int(part[-1]), len(part)) for part in parts
    ]


def longest_stretch(flagged: ArrayLike) -> tuple[int, int]:
    """(first position, length) of the longest unbroken stretch of `flagged`, [n]; length 0 if none."""
    padded = np.concatenate([[0], np.asarray(flagged, dtype=np.int8), [0]])
    starts, ends = np.flatnonzero(np.diff(padded) == 1), np.flatnonzero(np.diff(padded) == -1)
    if not starts.size:
        return 0, 0
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest] - starts[longest])


def mostly_to_the_end(flagged: ArrayLike) -> int | None:
    """The first flagged position of `flagged`, [n], from which on nine of ten are."""
    low = np.asarray(flagged, dtype=bool)
    share = np.cumsum(low[::-1])[::-1] / np.arange(len(low), 0, -1)
    at = np.flatnonzero(low & (share >= 0.9))
    return int(at[0]) if at.size else None
