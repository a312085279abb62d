"""Runs the command of a recorded run again, several times, each with something else applied."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stabdiag.core.run import RunInfo
from stabdiag.store.follower import Follower

TICK = 0.25
PATIENCE = 40.0
"""Seconds that a replay has to end when this process is interrupted."""


@dataclass(frozen=True, slots=True)
class Variant:
    """`apply` as on the command line; `runtime` the advice that it is made from."""

    id: str
    apply: tuple[str, ...] = ()
    runtime: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replay:
    """A variant that was run. `path` is its run directory, `log` what it printed."""

    variant: Variant
    path: Path
    log: Path
    exit_status: int


Watcher = Callable[[str, int, bool], None]
"""Told of a variant's id, its number of steps, and whether it has ended."""


class _Running:
    """`steps` are those that are recorded so far."""

    def __init__(self, variant: Variant, process: subprocess.Popen[bytes], run_dir: Path) -> None:
        self.variant = variant
        self.process = process
        self._follower = Follower(run_dir)
        self._run_dir = run_dir

    @property
    def steps(self) -> int:
        if not self._run_dir.exists():
            return 0
        kinds = self._follower.refresh().kinds
        if "run" not in kinds or not len(kinds["run"].steps):
            return 0
        return int(kinds["run"].steps[-1]) + 1


def replay(
    info: RunInfo, variants: Sequence[Variant], folder: Path, every: int, jobs: int, watcher: Watcher
) -> list[Replay]:
    """At most `jobs` at a time, in the order of `variants`; each makes a run directory in `folder`."""
    waiting = list(variants)
    running: dict[str, _Running] = {}
    done: dict[str, Replay] = {}
    with _ended_with_us(running):
        while waiting or running:
            while waiting and len(running) < jobs:
                variant = waiting.pop(0)
                process = _start(info, variant, folder, every)
                running[variant.id] = _Running(variant, process, folder / variant.id)
            time.sleep(TICK)
            for id, one in list(running.items()):
                status = one.process.poll()
                watcher(id, one.steps, status is not None)
                if status is not None:
                    del running[id]
                    done[id] = Replay(one.variant, folder / id, _log(folder, id), status)
    return [done[variant.id] for variant in variants]


def _start(info: RunInfo, variant: Variant, folder: Path, every: int) -> subprocess.Popen[bytes]:
    options = [
        "--quiet",
        "--no-report",
        "--every",
        str(every),
        "--log-dir",
        str(folder),
        "--name",
        variant.id,
    ]
    for request in (*info.configuration.get("apply", ()), *variant.apply):
        options += ["--apply", request]
    if info.configuration.get("guard"):
        options.append("--guard")
    with _log(folder, variant.id).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "stabdiag", "run", *options, *info.command],
            cwd=info.cwd or None,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt at the terminal is ours to pass on
        )


def _log(folder: Path, id: str) -> Path:
    return folder / f"{id}.log"


@contextmanager
def _ended_with_us(running: Mapping[str, _Running]) -> Iterator[None]:
    """No replay goes on without us."""
    try:
        yield
    finally:
        for one in running.values():
            one.process.terminate()
        deadline = time.monotonic() + PATIENCE
        while any(one.process.poll() is None for one in running.values()) and time.monotonic() < deadline:
            time.sleep(TICK)
        for one in running.values():
            one.process.kill()  # nothing, where it has ended
