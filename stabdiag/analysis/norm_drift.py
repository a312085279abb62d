"""How the norms of weights wander over a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.robust import Doubles, median
from stabdiag.analysis.step_size import decoupled_decay, schedule
from stabdiag.analysis.unaided import unaided_growth
from stabdiag.analysis.updates import updates
from stabdiag.core.run import Run

AT_ONCE = 0.2
"""Growth of a logarithm in a step."""

SETTLED = 0.1
"""Share of the run in which weights find their scale."""


@dataclass(frozen=True)
class Drift:
    """`change` [matrices] is the largest logarithm of growth within a tenth of the run, or beyond what the
    updates account for where it is `unaided`, or the loss of norm since the start; `at` where it began.
    `decay` is the share of a step that decay made, where it is that which tells.
    """

    change: Doubles
    at: int
    grows: bool
    unaided: bool = False
    decay: float = 0.0


def beyond_updates(
    run: Run, steps: NDArray[np.int64], names: tuple[str, ...], norms: Doubles, least: float
) -> Drift | None:
    change, at = unaided_growth(run, steps, names, norms)
    return Drift(change, at, grows=True, unaided=True) if (change > np.log(least)).any() else None


def growing(run: Run, steps: NDArray[np.int64], norms: Doubles, growth: float) -> Drift | None:
    later = np.searchsorted(steps, steps + run.steps / 10)
    inside = (later < len(steps)) & (steps >= SETTLED * run.steps)
    if not inside.any():
        return None
    logs = np.log(norms)
    logs[1:] -= _leaps(steps, logs, float(np.log(growth)))
    change = logs[later[inside]] - logs[inside]
    known = np.isfinite(change)
    largest = np.where(known.any(axis=0), np.max(np.where(known, change, -np.inf), axis=0), np.nan)
    if not (largest > np.log(growth)).any():
        return None
    row = int(np.flatnonzero((change > np.log(growth)).any(axis=1))[0])
    window = slice(int(np.flatnonzero(inside)[row]), int(later[inside][row]) + 1)
    # Of the window that grows so much, it began where a tenth of that was passed.
    grown = logs[window] - logs[window.start]
    begun = (grown > 0.1 * np.log(growth)) & (change[row] > np.log(growth))
    return Drift(largest, window.start + int(np.argmax(begun.any(axis=1))), True)


def _leaps(steps: NDArray[np.int64], logs: Doubles, least: float) -> Doubles:
    """[records - 1, matrices]: by how much the logarithms have grown at one go so far: by more than `least`
    from one record to the next, and `AT_ONCE` a step. That is no drift: something wrote to the weight."""
    grown = np.diff(logs, axis=0)
    at_once = (grown > least) & (grown > AT_ONCE * np.diff(steps)[:, None])
    return np.asarray(np.cumsum(np.where(at_once, grown, 0.0), axis=0))


def shrinking(steps: NDArray[np.int64], norms: Doubles, shrunk: float, most: float) -> Drift | None:
    first = np.argmax(np.isfinite(norms), axis=0)
    begun = norms[first, np.arange(norms.shape[1])]
    change = np.log(norms / begun)
    low = (change < np.log(shrunk)).mean(axis=1) > most
    at = int(np.argmax(low))
    # Adam may throw weights of nothing back up at the end.
    if not low[at:].mean() >= 0.5 or not low.any():
        return None
    return Drift(np.median(change[at:], axis=0), at, False)


def decayed(run: Run, steps: NDArray[np.int64], norms: Doubles, share: float, shrunk: float) -> Drift | None:
    """Where decoupled decay, lr · λ of a weight, makes the `share` of its steps and more, in the median of
    all matrices after the first eighth of the run, and half of them end below `shrunk` of their first norm:
    they are held together by nothing else any more."""
    decay = decoupled_decay(run)
    if not decay or "update.ratio" not in run:
        return None
    taken = updates(run)
    late = np.isfinite(taken.middle) & (taken.middle > 0) & (taken.steps >= run.steps / 8)
    rates = np.array([schedule(run).at(int(step)) or 0.0 for step in taken.steps[late]])
    if len(rates) < 3:
        return None
    part = float(np.median(rates * decay / taken.middle[late]))
    change = np.log(norms[-1] / norms[0])
    if part < share or not median(change) < np.log(shrunk):
        return None
    falls = median(np.log(norms / norms[0]), axis=1) < 0.25 * np.log(shrunk)
    return Drift(change, int(np.argmax(falls)), False, decay=min(part, 1.0))
