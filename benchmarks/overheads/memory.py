"""The most memory that a process takes (VmHWM), each time in a fresh one."""

from __future__ import annotations

from collections.abc import Sequence

from overheads.training import Size
from overheads.worker import Failed, Worker

STEPS = 55  # some of every tier of a fixed cadence


def peaks(monitors: Sequence[str], size: Size, runs: int, failures: dict[str, str]) -> dict[str, list[float]]:
    """MiB of each run of each monitor, in turns."""
    found: dict[str, list[float]] = {monitor: [] for monitor in monitors}
    for _ in range(runs):
        for monitor in [name for name in monitors if name not in failures]:
            found[monitor] += _peak(monitor, size, failures)
    return found


def _peak(monitor: str, size: Size, failures: dict[str, str]) -> list[float]:
    try:
        with Worker(monitor, size) as worker:
            worker.train(STEPS)
            return [worker.end()]
    except Failed as failure:
        failures[monitor] = str(failure)
        return []
