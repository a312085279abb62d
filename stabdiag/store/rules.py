"""How a statistic of several processes becomes that of the whole: one rule a name, and nowhere else.

A statistic is a commutative monoid (stats/family.py), so the parts of a batch, of a parameter or of a
world merge alike: norms as the root of the sum of squares, extents by the larger, means by their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

Stack = NDArray[np.float64]
Rule = Callable[[Stack, Stack], Stack]
"""Values [ranks, rows, sites], NaN where a rank has none, and weights that broadcast to it
-> [rows, sites], anything where no rank has one."""

FINGERPRINTS = float(2**24)


def hypot(values: Stack, _weights: Stack) -> Stack:
    """Root of the sum of squares: a norm."""
    total: Stack = np.sqrt(_present(values * values).sum(axis=0))
    return total


def largest(values: Stack, _weights: Stack) -> Stack:
    found: Stack = np.fmax.reduce(values, axis=0)
    return found


def least(values: Stack, _weights: Stack) -> Stack:
    found: Stack = np.fmin.reduce(values, axis=0)
    return found


def total(values: Stack, _weights: Stack) -> Stack:
    found: Stack = _present(values).sum(axis=0)
    return found


def mean(values: Stack, weights: Stack) -> Stack:
    """Weighted; ranks of no weight count alike where no other has a value."""
    held = np.where(np.isnan(values), 0.0, weights)
    whole = held.sum(axis=0)
    if (whole == 0).any():
        held = np.where(whole == 0, ~np.isnan(values), held)
        whole = held.sum(axis=0)
    found: Stack = (_present(values) * held).sum(axis=0) / whole
    return found


def root_mean_square(values: Stack, weights: Stack) -> Stack:
    found: Stack = np.sqrt(mean(values * values, weights))
    return found


def first(values: Stack, _weights: Stack) -> Stack:
    """Of the lowest rank that has one."""
    found: Stack = values[0]
    for other in values[1:]:
        missing = np.isnan(found)
        if not missing.any():
            break
        found = np.where(missing, other, found)
    return found


def added_fingerprint(values: Stack, _weights: Stack) -> Stack:
    """Of a batch: its parts in any order have the same."""
    found: Stack = _present(values).sum(axis=0) % FINGERPRINTS
    return found


def _present(values: Stack) -> Stack:
    return np.where(np.isnan(values), 0.0, values)


RULES: Mapping[str, Rule] = {
    "batch.fingerprint": added_fingerprint,
    "optimizer.momentum": hypot,
    "optimizer.step": root_mean_square,
    "run.lr": first,
    "run.loss_scale": first,
    "run.micro_batches": first,
    "run.grad_norm": first,
    "run.clipped_grad_norm": first,
    "run.samples": total,
    "run.tokens": total,
    "run.skipped": largest,
    "run.optimizer_age": least,
    "run.tier": least,
    "run.*_time": largest,
    "run.memory": largest,
    "run.reserved": largest,
    "run.resident": largest,
    "*.exact": least,
    "*.nonfinite": total,
    "*.absmax": largest,
    "*.max": largest,
    "*.max_*": largest,
    "*.min": least,
    "*.norm": hypot,
    "*_norm": hypot,
    "*.rms": root_mean_square,
}
"""The first pattern that fits; what none fits is a mean."""


def rule_of(series: str) -> Rule:
    """The rule of `<kind>.<statistic>` for parts of one whole."""
    return next((rule for pattern, rule in RULES.items() if fnmatchcase(series, pattern)), mean)
