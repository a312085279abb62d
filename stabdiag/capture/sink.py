"""Where a recording process puts its rows and events: the run directory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path

import torch

from stabdiag.core.event import Event
from stabdiag.core.run import Floats
from stabdiag.core.site import Site
from stabdiag.store.events import EventLog
from stabdiag.store.writer import RankWriter


class RunSink:
    """One process's part of a run directory. Its number is the process's rank, or the next free one
    where another process has taken that: a relaunch, or a spawned worker that knows no rank."""

    def __init__(self, run_dir: Path) -> None:
        self._events = EventLog(run_dir)
        self.rank = _claim(run_dir)
        self._writer = RankWriter(run_dir, self.rank)

    def write(
        self, kind: str, step: int, time: float, sites: Sequence[Site], columns: Mapping[str, Floats]
    ) -> None:
        self._writer.write(kind, step, time, sites, columns)

    def event(self, event: Event) -> None:
        self._events.append(event)

    def close(self) -> None:
        """Gives the file descriptors back."""
        self._writer.close()


def rank_and_world() -> tuple[int, int]:
    """Of torch.distributed where it is initialised, else of the launcher's environment, else (0, 1)."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    environment = os.environ
    return int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))


def _claim(run_dir: Path) -> int:
    rank, world = rank_and_world()
    for number in chain([rank], count(world)):
        try:
            (run_dir / f"rank-{number}").mkdir()
        except FileExistsError:
            continue
        return number
    raise AssertionError
