"""Ends the target as a person at the terminal would."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from stabdiag.core.event import Event
from stabdiag.launch.child import Child
from stabdiag.launch.voice import Voice

GRACE = 30.0
"""Seconds that the target has to write its checkpoint after SIGINT."""


class PoliteStop:
    """SIGINT to the target and to the processes that train, SIGTERM after `grace` seconds.

    Why it was stopped becomes an event of the run, unless who asked for it wrote one.
    """

    def __init__(self, child: Child, run_dir: Path, voice: Voice, grace: float = GRACE) -> None:
        self._child = child
        self._run_dir = run_dir
        self._voice = voice
        self._grace = grace
        self._left = [signal.SIGINT, signal.SIGTERM]
        self._next = 0.0

    def insist(self, because: str) -> None:
        """Called again and again while the target lives."""
        now = time.monotonic()
        if not self._left or now < self._next:
            return
        number = self._left.pop(0)
        self._next = now + self._grace
        self._voice.say(f"{because}: stopping the target ({number.name})")
        self._note(because)
        # A launcher or a shell that is signalled alone would leave its workers running.
        for pid in self._trainers():
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        self._child.send(number)

    def _events(self, name: str) -> Iterator[Event]:
        from stabdiag.store.events import read_events

        log = read_events(self._run_dir)
        log.refresh()
        return (event for event in log.records if event.event == name)

    def _note(self, because: str) -> None:
        from stabdiag.store.events import EventLog

        if not any(self._events("stop")):
            with contextlib.suppress(OSError):  # the disk is full
                EventLog(self._run_dir).append(Event("stop", time.time(), data={"because": because}))

    def _trainers(self) -> Iterator[int]:
        pids = (event.data.get("pid") for event in self._events("process"))
        return (pid for pid in pids if isinstance(pid, int) and pid != self._child.pid and self._is_ours(pid))

    def _is_ours(self, pid: int) -> bool:
        """Whether `pid` still is in our process group: another process may have got the number since."""
        try:
            return os.getpgid(pid) == os.getpgrp()
        except OSError:
            return False
