"""The analysis beside the training: new findings are told when they are found."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

from stabdiag.core.config import Configuration
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.event import Event
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.run import Run
from stabdiag.launch.listener import Listeners
from stabdiag.launch.voice import Voice

PERIOD = 2.0
"""Seconds between two looks at the run."""

SHARE = 0.05
"""Part of one core that the looks may take: long runs are looked at less often."""

NICENESS = 10

DIVERGENCE = ("loss-divergence", "lr-divergence")
"""Signatures of a run that is lost."""


class LiveAnalysis(threading.Thread):
    """Follows the run until `finish`; a finding is told once, and once more when it gets worse.

    Then the listeners hear of the look. A failure ends the following, never the supervisor. `critical` is
    the first finding of that severity, `diverged` the first of those that says that the run is lost.
    """

    def __init__(self, run_dir: Path, config: Configuration, voice: Voice, listeners: Listeners) -> None:
        super().__init__(name="stabdiag-live", daemon=True)
        self.critical: Finding | None = None
        self.diverged: Finding | None = None
        self._run_dir = run_dir
        self._config = config
        self._voice = voice
        self._listeners = listeners
        self._told: dict[str, Severity] = {}
        self._over = threading.Event()

    def finish(self) -> None:
        """Returns when the look that is under way, if any, has ended."""
        self._over.set()
        self.join()

    def run(self) -> None:
        try:
            self._follow()
        except Exception as error:
            self._voice.complain(f"the analysis while training failed, recording goes on: {error}")

    def _follow(self) -> None:
        while not any(self._run_dir.glob("rank-*")):
            if self._over.wait(PERIOD):
                return
        # Imported when there is something to analyse: it costs a second of a core.
        from stabdiag.analysis.diagnose import diagnose
        from stabdiag.store.findings import write_findings
        from stabdiag.store.follower import Follower

        os.nice(NICENESS)
        follower = Follower(self._run_dir)
        steps, pause = 0, 0.0
        while not self._over.wait(pause):
            began = time.thread_time()
            run = follower.refresh()
            if run.steps > steps:
                steps = run.steps
                diagnosis = diagnose(run, self._config)
                self._tell(run, diagnosis)
                write_findings(self._run_dir, diagnosis)
                self._listeners.looked(run, diagnosis)
            pause = max(PERIOD, (time.thread_time() - began) / SHARE)

    def _tell(self, run: Run, diagnosis: Diagnosis) -> None:
        from stabdiag.render.summary import alert_line
        from stabdiag.store.events import EventLog
        from stabdiag.store.flight import ask_for_record

        for finding in diagnosis.findings:
            if finding.severity <= self._told.get(finding.signature, Severity.info):
                continue
            self._told[finding.signature] = finding.severity
            if finding.severity is Severity.critical:
                self.critical = self.critical or finding
                if finding.signature in DIVERGENCE:
                    self.diverged = self.diverged or finding
                with contextlib.suppress(OSError):  # the disk is full
                    ask_for_record(self._run_dir, f"{finding.signature} since step {finding.onset_step}")
            line = alert_line(diagnosis, finding, sys.stderr.encoding)
            self._voice.say(f"step {run.steps - 1}: {line}")
            data = {
                "signature": finding.signature,
                "severity": str(finding.severity),
                "sites": list(finding.sites),
                "message": finding.message,
            }
            EventLog(self._run_dir).append(Event("finding", time.time(), finding.onset_step, 0, data))
