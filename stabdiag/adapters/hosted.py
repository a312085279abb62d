"""A training in the hands of a host: recorded like `stabdiag.watch` does, whatever becomes of it."""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from stabdiag.api import Watch, watch
from stabdiag.capture.sink import rank_and_world
from stabdiag.core.cadence import Cadence
from stabdiag.core.errors import StabdiagError
from stabdiag.core.event import Event
from stabdiag.core.finding import Severity
from stabdiag.store.events import EventLog

_told: set[str] = set()


def recorded_by() -> str:
    """Who records this process already, empty where nobody does."""
    if os.environ.get("STABDIAG_RUN") and "stabdiag.launch.attach" in sys.modules:
        return "`stabdiag run`"
    return "another recording that is open" if Watch.opened else ""


class Hosted:
    """One recording after the other, each from `begin` to `end` or `fail`.

    Nothing of ours reaches the training as an error: what goes wrong is a warning of `log`.
    `tells_its_end`: whether the host always says when a training ended well, so that silence means an error.
    The options are those of `stabdiag.watch`. Raises StabdiagError for a cadence that is none.
    """

    def __init__(
        self,
        log: logging.Logger,
        tells_its_end: bool,
        log_dir: str | Path,
        name: str | None,
        budget: str | float,
        every: int | None,
        keep_batches: int,
    ) -> None:
        Cadence.parse(budget, every, keep_batches)
        self._log = log
        self._tells_its_end = tells_its_end
        self._options: dict[str, Any] = {
            "log_dir": log_dir,
            "name": name,
            "budget": budget,
            "every": every,
            "keep_batches": keep_batches,
        }
        self.watch: Watch | None = None
        """The last recording, None before the first."""

    @property
    def is_open(self) -> bool:
        return self.watch is not None and self.watch in Watch.opened

    def begin(self, steps: float | None = None, source: str = "") -> None:
        """Records whatever trains from now on: as many optimizer steps as `source` says, if it is known. One
        that is open still was left by an error, and ends."""
        self._end_abandoned()
        by = recorded_by()
        if by:
            self._say_once(f"stabdiag: {by} records this training: it is not recorded twice")
            return
        try:
            self.watch = watch(**self._options)
        except StabdiagError as error:
            hint = f"; {error.hint}" if error.hint else ""
            self._log.warning(f"stabdiag: this training is not recorded: {error.message}{hint}")
        except Exception as error:
            self._log.warning(f"stabdiag: this training is not recorded: {type(error).__name__}: {error}")
        else:
            if self.watch.leads:
                self._log.info(f"stabdiag: recording into {self.watch.path}")
                self._plan(steps, source)
            atexit.register(self._end_abandoned)
            _on_failing_cell(self)

    def _plan(self, steps: float | None, source: str) -> None:
        if self.watch is not None and steps is not None and 0 < steps < math.inf:
            planned = Event("planned", time.time(), None, 0, {"steps": int(steps), "source": source})
            with contextlib.suppress(OSError):  # a full disk
                EventLog(self.watch.path).append(planned)

    def _say_once(self, line: str) -> None:
        if line not in _told and rank_and_world()[0] == 0:
            _told.add(line)
            self._log.warning(line)

    def end(self) -> None:
        """Closes the recording and logs what was found, one line each; the last line, how it was, is seen
        however quiet the logger is kept."""
        self._close(None)

    def fail(self, error: BaseException) -> None:
        """Closes the recording of a training that `error` ended."""
        self._close(error)

    def _end_abandoned(self) -> None:
        """Where the host had no word for the end: at the next training, or when the process ends."""
        self._close(getattr(sys, "last_value", None), exit_status=int(self._tells_its_end))

    def _close(self, error: BaseException | None, exit_status: int = 0) -> None:
        if not self.is_open or self.watch is None:
            return
        atexit.unregister(self._end_abandoned)
        try:
            if error is None:
                self.watch.close(exit_status)
            else:
                self.watch.fail(error)
            if self.watch.leads:
                for severity, line in (lines := list(told(self.watch))):
                    level = logging.WARNING if severity > Severity.info else logging.INFO
                    self._log.log(level, "stabdiag: %s", line)
                if not self._log.isEnabledFor(level):
                    print(f"stabdiag: {lines[-1][1]}", file=sys.stderr, flush=True)
        except Exception as ours:
            self._log.warning(
                f"stabdiag: the diagnosis failed, the run is kept: {type(ours).__name__}: {ours}"
            )


class HostCallback:
    """What the callbacks of all hosts are: the options of `stabdiag.watch`, and the recording.

    `logger` is the host's, to which findings go; `tells_its_end` as `Hosted` has it. Stands before the host's
    own class among the bases.
    """

    logger: ClassVar[str]
    tells_its_end: ClassVar[bool] = True

    def __init__(
        self,
        log_dir: str | Path = "stabdiag-runs",
        name: str | None = None,
        budget: str | float = "2%",
        every: int | None = None,
        keep_batches: int = 0,
    ) -> None:
        super().__init__()
        log = logging.getLogger(self.logger)
        self._hosted = Hosted(log, self.tells_its_end, log_dir, name, budget, every, keep_batches)
        self.prepare()

    def prepare(self) -> None:
        """What a host needs when its callback is made."""

    @property
    def run(self) -> Watch | None:
        """The last recording, None before the first."""
        return self._hosted.watch


def told(watch: Watch) -> Iterator[tuple[Severity, str]]:
    """The incidents of a recording and what to type next, a line each, each with how loud it is."""
    from stabdiag.render import describe
    from stabdiag.render.summary import alert_line
    from stabdiag.render.terminal import speakable

    run, diagnosis = watch.run, watch.diagnosis
    worst = max((f.severity for f in diagnosis.findings), default=Severity.info)
    for incident in diagnosis.incidents:
        yield incident.severity, alert_line(diagnosis, diagnosis.findings[incident.root])
    sentence = describe.verdict_sentence(run, diagnosis)
    command = describe.next_commands(run, diagnosis)[0]
    yield worst, speakable(f"{sentence} Next: {command}", "utf-8")


def _on_failing_cell(hosted: Hosted) -> None:
    """In a notebook an error ends the cell and not the process: the recording ends with the cell."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return
    reference = weakref.ref(hosted)

    def after(result: Any) -> None:
        shell.events.unregister("post_run_cell", after)
        left = reference()
        if left is not None and left.is_open and result.error_in_exec is not None:
            left.fail(result.error_in_exec)

    shell.events.register("post_run_cell", after)
