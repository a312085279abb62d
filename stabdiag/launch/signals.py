"""Signals that the supervisor gets while the target runs: never its own death, but whose are they?"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import TracebackType
from typing import NamedTuple

FORWARDED = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
)
HELD = FORWARDED | {signal.SIGCHLD}
KEYS = frozenset({signal.SIGINT, signal.SIGQUIT})


class Arrival(NamedTuple):
    """`from_terminal`: the terminal gave it to the whole process group, so the target has it too."""

    signal: signal.Signals
    from_terminal: bool


class HeldSignals:
    """Within this context the signals wait until they are asked for; threads begun in it never get one.

    `before` is the mask that the target has to start with.
    """

    def __enter__(self) -> HeldSignals:
        # An ignored SIGCHLD would have the system forget the target's exit status.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        return self

    def wait(self, seconds: float) -> Arrival | None:
        """The next signal to think about; None after `seconds`, or at once when a child changed state."""
        if sys.platform == "linux":
            info = signal.sigtimedwait(HELD, seconds)
            if info is None or info.si_signo == signal.SIGCHLD:
                return None
            # Zero and below: some process sent it. Above: the kernel did, for the terminal.
            return Arrival(signal.Signals(info.si_signo), info.si_code > 0)
        return _poll(seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What came with the target's end was meant for the target; later ones are meant for us.
        while signal.sigpending() & HELD:
            signal.sigwait(HELD)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.before)


def _poll(seconds: float) -> Arrival | None:
    """Without sigtimedwait nobody says who sent a signal: keys of our own terminal are taken for such."""
    deadline = time.monotonic() + seconds
    while not (pending := signal.sigpending() & HELD) and time.monotonic() < deadline:
        time.sleep(0.05)
    if not pending:
        return None
    number = signal.Signals(signal.sigwait(pending))
    if number == signal.SIGCHLD:
        return None
    return Arrival(number, number in KEYS and _in_foreground())


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
