"""Follows a run from outside of it, wherever it is in its life."""

from __future__ import annotations

import os
import platform
import threading
import time
from dataclasses import replace
from pathlib import Path

from stabdiag.core.config import Configuration
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.errors import DamagedRun
from stabdiag.core.run import Run, RunInfo
from stabdiag.launch.listener import Listeners
from stabdiag.render.look import Look, State
from stabdiag.render.progress import Length, progress
from stabdiag.store.directory import DEFAULT, is_run, resolve_run
from stabdiag.store.findings import NAME, read_findings
from stabdiag.store.follower import Follower

PERIOD = 0.5
"""Seconds between two looks."""

SHARE = 0.1
"""Part of one core that the looks may take."""

NICENESS = 10

PATIENCE = 5.0
"""Seconds for which the diagnosis of whoever runs it is waited for."""

CLOSING = 60.0
"""Seconds after its last sign that a run without processes may still be closed by its supervisor."""


class Onlooker(threading.Thread):
    """Looks until `finish`, or until the run has come to its end. `latest` is the last look.

    `where` is a run directory, a folder of runs, or what is to become one. A failure ends the looking, and
    is then `failure`.
    """

    def __init__(
        self, where: Path | None, config: Configuration, listeners: Listeners, length: Length | None = None
    ) -> None:
        """DamagedRun where `where` can never be a run."""
        super().__init__(name="stabdiag-onlooker", daemon=True)
        self.failure: Exception | None = None
        self.over = threading.Event()
        self._where = where
        self._config = config
        self._listeners = listeners
        self._length = length
        self._follower: Follower | None = None
        self._own: Diagnosis | None = None
        self._written: tuple[float, Diagnosis] | None = None
        self._spent = 0.0
        self._rested = 0.0
        if where is not None and where.exists() and not where.is_dir():
            resolve_run(where)
        self.latest = self._waiting()

    def finish(self) -> None:
        self.over.set()
        self.join()

    def run(self) -> None:
        try:
            os.nice(NICENESS)
            self._look_on()
        except Exception as error:
            self.failure = error
        self.over.set()

    def _look_on(self) -> None:
        steps, pause = 0, 0.0
        while not self.over.wait(pause):
            began, spent = time.thread_time(), self._spent
            look = self.look()
            over = look.state in (State.ended, State.gone)
            if look.diagnosis and (over or look.run.steps > steps):
                steps = look.run.steps
                self._listeners.looked(look.run, look.diagnosis)
            self.latest = look
            if over:
                return
            # What a diagnosis of our own cost keeps back the next one, not the view.
            pause = max(PERIOD, (time.thread_time() - began - (self._spent - spent)) / SHARE)

    def look(self) -> Look:
        if self._follower is None:
            try:
                path = resolve_run(self._where)
            except DamagedRun:
                return self._waiting()
            self._follower = Follower(path)
        run = self._follower.refresh()
        now = time.time()
        state = _state(run, now)
        diagnosis = self._diagnosed(run, now, state) if run.steps or state is not State.waiting else None
        name = run.path.name if run.path else str(self._where)
        return Look(name, state, run, diagnosis, progress(run, now, self._length))

    def _waiting(self) -> Look:
        nothing = Run(RunInfo(), {})
        name = str(self._where or DEFAULT)
        return Look(name, State.waiting, nothing, None, progress(nothing, time.time(), self._length))

    def _diagnosed(self, run: Run, now: float, state: State) -> Diagnosis:
        """That of whoever runs it, as long as that keeps up; else our own, as often as our share allows."""
        written = self._read(run)
        if written is not None and (_steps(written[1]) >= run.steps or now - written[0] < PATIENCE):
            return written[1]
        live = state is State.training and self._own is not None
        if self._own is None or (_steps(self._own) < run.steps and not (live and now < self._rested)):
            from stabdiag.analysis.diagnose import diagnose

            began = time.thread_time()
            self._own = diagnose(run, self._config)
            self._spent += (cost := time.thread_time() - began)
            self._rested = now + cost / SHARE
        # How it ended may have become known since.
        block = {**self._own.run, "exit_status": run.info.exit_status, "signal": run.info.signal}
        known = [self._own] if written is None else [self._own, written[1]]
        latest = max(known, key=_steps)
        return replace(latest, run=block) if latest is self._own else latest

    def _read(self, run: Run) -> tuple[float, Diagnosis] | None:
        assert run.path is not None
        try:
            at = (run.path / NAME).stat().st_mtime
            if self._written is None or self._written[0] != at:
                self._written = at, read_findings(run.path)
        except (OSError, DamagedRun):
            return None
        return self._written


def _steps(diagnosis: Diagnosis) -> int:
    return int(diagnosis.run.get("steps") or 0)


def _state(run: Run, now: float) -> State:
    if run.info.ended is not None:
        return State.ended
    if not run.steps and not run.events:
        return State.waiting
    times = [float(data.times[-1]) for data in run.kinds.values() if len(data.times)]
    last = max([*times, *(event.time for event in run.events)], default=now)
    if now - last > CLOSING and not (run.path and is_run(run.path)):
        return State.quiet  # another tool's log does not say whether its training goes on
    if now - last > CLOSING and not _alive(run):
        return State.gone
    return State.training if run.steps else State.waiting


def _alive(run: Run) -> bool:
    """Whether any process of the run may live: of one on another host nobody here knows."""
    if run.info.host and run.info.host != platform.node():
        return True
    pids = [event.data.get("pid") for event in run.events_of("process")]
    return any(_exists(pid) for pid in pids if isinstance(pid, int) and 0 < pid < 2**31)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
