"""Optimizers that take the place of another: after a resume, or for another phase of the same training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.event import Event
from stabdiag.core.run import Run

FIRST = 2
"""Steps within which all optimizers of a game have stepped for the first time."""


@dataclass(frozen=True)
class Successor:
    """The optimizer of this index and class has the first one's parameters since `step`."""

    index: int
    name: str
    step: int


def successors(run: Run) -> tuple[Successor, ...]:
    """Those found after the first steps that hold as many parameters as the first one, in order. Sides of a
    game are there from the beginning."""
    own = [event for event in run.events_of("optimizer") if event.rank == 0]
    if len(own) < 2:
        return ()
    return tuple(
        Successor(int(event.data.get("index", 0)), str(event.data.get("name", "")), event.step)
        for event in own[1:]
        if event.step is not None and event.step > FIRST and _held(event) == _held(own[0]) > 0
    )


def continued(run: Run, steps: NDArray[np.int64]) -> NDArray[np.float32]:
    """`run.lr` of the run itself at `steps`, which are the table's: that of the first optimizer, and of each
    that took its place from then on, [n]."""
    table = run.table("run.lr")
    rate: NDArray[np.float32] = table.first().copy()
    for later in successors(run):
        name = f"{later.name}.{later.index}.0"
        if name in table.names:
            own = table.column(name)
            since = (steps >= later.step) & np.isfinite(own)
            rate[since] = own[since]
    return rate


def _held(event: Event) -> int:
    groups = event.data.get("groups") or ()
    return sum(int(group.get("parameters", 0)) for group in groups if isinstance(group, dict))
