from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.core.run import Run
from stabdiag.zoo.baseline import Alarm, baseline, episodes, recorded

FIRST, FACTOR = 100, 10.0


@baseline("megatron", title="Megatron's check of the loss")
def alarms(run: Run) -> Iterator[Alarm]:
    """A loss that is not finite, or more than ten times the largest of the first hundred."""
    table = recorded(run, "run.loss")
    if not table.values.size:
        return
    loss = table.values[:, 0]
    for step in episodes(table.steps, ~np.isfinite(loss)):
        yield Alarm(step, "not finite", ("nonfinite-origin",))
    largest = np.nanmax(np.where(np.isfinite(loss[:FIRST]), loss[:FIRST], -np.inf))
    later = np.arange(len(loss)) >= FIRST
    for step in episodes(table.steps, later & (loss > FACTOR * largest)):
        yield Alarm(step, "unexpectedly large", ("loss-divergence", "loss-spike", "silent-data-corruption"))
