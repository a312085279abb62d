"""Which of the recorded processes trained together, and what shows only when they are seen side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stabdiag.core.event import Event
from stabdiag.core.run import Floats, KindData
from stabdiag.core.site import Site
from stabdiag.store.align import Rows

OWN = ("step_time", "data_time", "forward_time", "backward_time", "loss", "grad_norm", "memory", "nonfinite")
CAUSAL = ("batch", "output", "logits", "loss", "output_grad", "grad", "update", "weight")
"""The order in which a non-finite value passes through a step."""


def world_of(events: Sequence[Event], recorded: Sequence[int]) -> tuple[int, ...]:
    """The recorded ranks that joined one world; only the lowest where none did.

    Processes that train apart in one run directory (spawned workers, a forked child) have worlds of
    their own, and those of a relaunch have numbers above its size.
    """
    sizes = {e.rank: e.data.get("world_size") for e in events if e.event == "process"}
    size = sizes.get(min(recorded, default=0), 1)
    if not isinstance(size, int) or size < 2:
        return tuple(recorded[:1])
    return tuple(rank for rank in recorded if rank < size and sizes.get(rank) == size)


def in_order(events: Sequence[Event]) -> tuple[Event, ...]:
    """With the `nonfinite` ones by step, then by the order of cause in a step, then by time: processes
    write when they come to it."""
    bad = sorted((event for event in events if event.event == "nonfinite"), key=_cause)
    following = iter(bad)
    return tuple(next(following) if event.event == "nonfinite" else event for event in events)


def _cause(event: Event) -> tuple[int, int, float]:
    what = event.data.get("what")
    place = CAUSAL.index(what) if what in CAUSAL else len(CAUSAL)
    return (-1 if event.step is None else event.step), place, event.time


def side_by_side(runs: Mapping[int, KindData]) -> KindData:
    """Kind `rank`: a site a process, of what each wrote into its own row of kind `run`.

    step_time      seconds; where processes wait for each other it is that of the slowest, for all
    data_time, forward_time  seconds, longer on one that keeps the others waiting
    backward_time  seconds, longer on those that wait
    memory         MiB
    loss           of the process's own part of the batch
    grad_norm      of the parts of the gradients that the process holds
    nonfinite      non-finite losses
    """
    steps = np.unique(np.concatenate([data.steps for data in runs.values()]))
    sites = tuple(Site("rank", f"rank-{number}", order=number) for number in runs)
    values: dict[str, Floats] = {}
    times = np.full(len(steps), np.nan)
    for data in runs.values():
        times[np.searchsorted(steps, data.steps)] = data.times
    for statistic in OWN:
        if any(statistic in data.values for data in runs.values()):
            columns = [Rows(data, _first(data)).take(statistic, steps)[:, 0] for data in runs.values()]
            values[statistic] = np.stack(columns, axis=1)
    return KindData(steps, times, sites, values)


def _first(data: KindData) -> list[str]:
    return [data.sites[0].name] if data.sites else [""]
