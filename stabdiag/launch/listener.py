"""The one door for all that sends a run on while it is recorded: to a command, a port, another format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.run import Run
from stabdiag.launch.voice import Voice


class Listener:
    """Hears of a run, in one thread at a time and never in a process of the target.

    It overrides what it needs. What a method raises is told in one line, and the listener hears nothing
    more. `name` is what the user asked for it by.
    """

    name = "a listener"

    def began(self, run_dir: Path) -> None:
        """The target was started; nothing is recorded yet."""

    def looked(self, run: Run, diagnosis: Diagnosis) -> None:
        """The run as far as it is recorded, every two seconds or more while it grows."""

    def found(self, run: Run, finding: Finding) -> None:
        """A finding above info, once a signature; what came before it was `looked` at."""

    def ended(self, run: Run, diagnosis: Diagnosis) -> None:
        """The whole run and the last diagnosis, when the target has ended. Nothing comes after it."""


class Listeners:
    """Tells each of them, and keeps what one does from the others and from the run."""

    def __init__(self, listeners: Iterable[Listener], voice: Voice) -> None:
        self._hearing = list(listeners)
        self._voice = voice
        self._told: set[str] = set()

    def began(self, run_dir: Path) -> None:
        self._each(lambda listener: listener.began(run_dir))

    def looked(self, run: Run, diagnosis: Diagnosis) -> None:
        self._each(lambda listener: listener.looked(run, diagnosis))
        self._tell_new(run, diagnosis)

    def ended(self, run: Run, diagnosis: Diagnosis) -> None:
        """A short run may have been looked at at its end only: what was found then is told before."""
        self._tell_new(run, diagnosis)
        self._each(lambda listener: listener.ended(run, diagnosis))

    def _tell_new(self, run: Run, diagnosis: Diagnosis) -> None:
        for finding in diagnosis.findings:
            if finding.severity > Severity.info and finding.signature not in self._told:
                self._told.add(finding.signature)
                self._found(run, finding)

    def _found(self, run: Run, finding: Finding) -> None:
        self._each(lambda listener: listener.found(run, finding))

    def _each(self, tell: Callable[[Listener], None]) -> None:
        self._hearing = [listener for listener in self._hearing if self._goes_on(listener, tell)]

    def _goes_on(self, listener: Listener, tell: Callable[[Listener], None]) -> bool:
        try:
            tell(listener)
        except Exception as error:
            self._voice.complain(f"{listener.name} failed and is off, the run goes on: {error}")
            return False
        return True
