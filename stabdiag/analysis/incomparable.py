"""Whether the loss of one step says nothing about that of another, so that its course is no measure.

In reinforcement learning it is the error of values that grow with the policy, on states that the policy
chooses, or a surrogate of which only the gradient means anything: it rises while the policy gets better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stabdiag.analysis.guessing import guessing
from stabdiag.analysis.history import history
from stabdiag.analysis.robust import Doubles
from stabdiag.core.run import Run

LEAST = 12
"""Batches with known targets, or losses, that are needed to tell."""

EACH = 4
"""Steps to one occasion on which a model that acts is asked."""

FOLD = 2.0
"""Between the targets' size in a quarter of the run and in a later one."""

AT_ONCE = 0.7
"""Share of all that change (of its logarithm) that comes at once where the data changed, not the model."""

BOTH = 0.1
"""Share of the losses that have each sign, in each third of the run, where their mean is none to be
lowered: a likelihood that falls through zero has both in passing only."""


def incomparable(run: Run, losses: Doubles) -> bool:
    """`losses` [n] are those of the whole run. True where the model acts between its steps, its targets grow
    bit by bit, or the loss goes about zero from the beginning to the end."""
    return _acts(run) or targets_move(run) or _about_zero(run, losses)


def _acts(run: Run) -> bool:
    """Whether the model was asked for answers before one in `EACH` steps; or now and then, as for a rollout,
    where the loss is written out by hand. Samples are drawn from a model now and then, too."""
    told = asked(run)
    often = any(EACH * data.get("occasions", 0) >= data.get("steps", 0) for data in told)
    return often or (bool(told) and run.fact("loss", "function", "unknown") == "unknown")


def asked(run: Run) -> list[Mapping[str, Any]]:
    """What was told of a model that acts: the data of the events. Nothing where the whole loss is the
    cross-entropy of classes: then answers in between are looked at, as at each step of a graph network, and
    what a policy has done would be weighted by its return."""
    return [] if guessing(run) is not None else [event.data for event in run.events_of("acting")]


def targets_move(run: Run) -> bool:
    """Whether the rms of the targets grows, bit by bit, to `FOLD` of what it was, and by more than it varies;
    False where they are no values or too few are known."""
    sizes = history(run, "targets.rms").finite().values
    sizes = sizes[sizes > 0]
    if len(sizes) < LEAST:
        return False
    logs = np.log(sizes)
    levels = np.array([np.median(part) for part in np.array_split(logs, 4)])
    rise = float(np.max(levels - np.minimum.accumulate(levels)))
    # Successive batches differ by noise alone, whatever the level does.
    noise = 1.25 * float(np.median(np.abs(np.diff(logs)))) / 0.954 * np.sqrt(2 / (len(logs) // 4))
    near = np.lib.stride_tricks.sliding_window_view(logs, 3)
    middles = np.median(near, axis=1)
    leap = float(np.max(middles[3:] - middles[:-3], initial=0.0))
    return bool(rise > max(np.log(FOLD), 4.0 * noise) and leap < AT_ONCE * float(np.ptp(middles)))


def _about_zero(run: Run, losses: Doubles) -> bool:
    known = losses[np.isfinite(losses)]
    if run.fact("loss", "function", "unknown") != "unknown" or len(known) < 3 * LEAST:
        return False
    shares = [float(np.mean(part > 0)) for part in np.array_split(known, 3)]
    return min(shares) > BOTH and max(shares) < 1 - BOTH
