"""Numbers in the order in which they were written, to numbers in the order of steps."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stabdiag.store.importer import Scalars

Steps = NDArray[np.int64]

OUT_OF_ORDER = 2
"""Values that a later one may come before without being taken back: threads write when they come to it."""


class Ordered(NamedTuple):
    """`steps` increase. `restarts` are the steps at which the training began again behind what was written;
    `counted` says that no steps were given, so that the values were counted instead."""

    steps: Steps
    times: NDArray[np.float64]
    values: NDArray[np.float64]
    restarts: tuple[int, ...]
    counted: bool


def ordered(scalars: Scalars) -> Ordered:
    """In the order of steps, the last value of each step.

    Where the steps go back behind more than two values a training was restarted from a checkpoint: what was
    written from that step on belongs to the attempt that was given up, and is left out. Steps in no order at
    all are only sorted.
    """
    steps = np.array(scalars.steps, np.int64)
    times, values = np.array(scalars.times, np.float64), np.array(scalars.values, np.float64)
    counted = len(steps) > 2 and bool((steps == steps[0]).all())
    if counted:
        steps = np.arange(len(steps))
    back = np.count_nonzero(np.diff(steps) <= 0)
    restarts: tuple[int, ...] = ()
    if back > len(steps) / 4:
        order = np.argsort(steps, kind="stable")
    elif back:
        order, restarts = _continued(steps)
    else:
        return Ordered(steps, times, values, (), counted)
    last = np.append(np.diff(steps[order]) > 0, True)
    at = order[last]
    return Ordered(steps[at], times[at], values[at], restarts, counted)


def _continued(steps: Steps) -> tuple[NDArray[np.intp], tuple[int, ...]]:
    """Positions in the order of steps, without what a restart took back; and where those were."""
    known: list[int] = []
    positions: list[int] = []
    restarts = []
    for position, step in enumerate(steps.tolist()):
        behind = len(known) - bisect_left(known, step)
        if behind > OUT_OF_ORDER:
            del known[-behind:], positions[-behind:]
            restarts.append(step)
        at = bisect_right(known, step)
        known.insert(at, step)
        positions.insert(at, position)
    return np.array(positions, np.intp), tuple(restarts)
