"""The target as a process: begun as a shell would have, and its end."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from stabdiag.core.errors import StabdiagError
from stabdiag.launch.target import Target

# What Python ignores from its start on; the target must not inherit that.
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Ending:
    """One of `exit_status` and `signal` is None. `peak_memory` is in bytes, of the target's processes."""

    exit_status: int | None
    signal: signal.Signals | None
    peak_memory: int

    def __str__(self) -> str:
        told = f"was killed by {self.signal.name}" if self.signal else f"ended with status {self.exit_status}"
        # A shell, or a launcher of workers, passes the death of a process on as a status.
        if signal.SIGKILL in (self.signal, (self.exit_status or 0) - 128):
            held = f"its largest process held {self.peak_memory / 2**20:,.0f} MiB"
            return f"{told} (SIGKILL: out of memory? {held})"
        return told

    def pass_on(self) -> NoReturn:
        """Ends this process as the target ended."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if self.signal is None:
            os._exit(self.exit_status or 0)
        # One core dump is enough, and it is the target's.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if self.signal not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(self.signal, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {self.signal})
        os.kill(os.getpid(), self.signal)
        os._exit(128 + self.signal)


class Child:
    """Shares our standard streams, working directory, process group and terminal."""

    def __init__(self, target: Target, environment: Mapping[str, str], mask: Iterable[int]) -> None:
        """`mask` is the signal mask to begin with. StabdiagError where the system cannot execute it."""
        try:
            self.pid = os.posix_spawn(
                target.program,
                target.arguments,
                environment,
                setsigmask=mask,
                setsigdef=IGNORED_BY_PYTHON,
            )
        except OSError as error:
            hint = "a script without a #! line needs its interpreter: stabdiag run bash train.sh"
            raise StabdiagError(f"{target.words[0]} cannot be executed: {error.strerror}", hint) from error
        self._ending: Ending | None = None

    def poll(self) -> Ending | None:
        """How it ended, None while it runs."""
        if self._ending is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
                killed = code < 0
                self._ending = Ending(
                    None if killed else code, signal.Signals(-code) if killed else None, memory
                )
        return self._ending

    def send(self, number: signal.Signals) -> None:
        # Until it is waited for, its process id cannot belong to another process.
        if self._ending is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)
