"""`--on-finding COMMAND`: a command of the user's own, run in the background for each finding."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from pathlib import Path

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run
from stabdiag.launch.child import IGNORED_BY_PYTHON
from stabdiag.launch.listener import Listener
from stabdiag.launch.voice import Voice
from stabdiag.store.files import encode

SHELL = "/bin/sh"
LOG = "on-finding.log"
SECONDS = 30.0
"""What a command may take."""

PATIENCE = 1.0
"""Seconds after which it is told that the end waits for a command."""

TICK = 0.05


class OnFinding(Listener):
    """Gives `command` to the shell as it was written; the finding is JSON on its standard input.

    What the command prints goes to `on-finding.log` in the run directory: stdout and the terminal are the
    target's.
    """

    name = "--on-finding"

    def __init__(self, command: str, voice: Voice, seconds: float = SECONDS) -> None:
        self._command = command
        self._voice = voice
        self._seconds = seconds
        self._log = Path(os.devnull)
        self._running: list[threading.Thread] = []

    def began(self, run_dir: Path) -> None:
        self._log = run_dir / LOG

    def found(self, run: Run, finding: Finding) -> None:
        told = encode({**finding.to_json(), "run": str(run.path)})
        thread = threading.Thread(target=self._call, args=(finding.signature, told), daemon=True)
        thread.start()
        self._running.append(thread)

    def ended(self, run: Run, diagnosis: Diagnosis) -> None:
        """Waits for the commands that still run."""
        soon = time.monotonic() + PATIENCE
        for thread in self._running:
            thread.join(max(soon - time.monotonic(), 0.0))
        left = [thread for thread in self._running if thread.is_alive()]
        if left:
            self._voice.say(f"waiting for --on-finding, {self._seconds:g} s at most")
        for thread in left:
            thread.join()

    def _call(self, signature: str, told: bytes) -> None:
        try:
            failed = self._run(told)
        except OSError as error:
            failed = str(error.strerror)
        if failed:
            self._voice.complain(f"--on-finding failed for {signature}: {failed}; its output: {self._log}")

    def _run(self, told: bytes) -> str:
        """Why it failed, empty where it did not."""
        with tempfile.TemporaryFile() as stdin, self._log.open("ab") as log:
            stdin.write(told)
            stdin.seek(0)
            pid = _spawn(self._command, stdin.fileno(), log.fileno())
        deadline = time.monotonic() + self._seconds
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return f"it took more than {self._seconds:g} s and was killed"
            time.sleep(TICK)
        status = os.waitstatus_to_exitcode(ended[1])
        if status < 0:
            return f"it was killed by {signal.Signals(-status).name}"
        return f"it ended with status {status}" if status else ""


def _spawn(command: str, stdin: int, log: int) -> int:
    """In a process group of its own: keys at the terminal are the target's, and it is killed whole."""
    return os.posix_spawn(
        SHELL,
        [SHELL, "-c", command],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ],
        setpgroup=0,
        # The supervisor holds its signals back, which the command must not inherit.
        setsigmask=(),
        setsigdef=IGNORED_BY_PYTHON,
    )
