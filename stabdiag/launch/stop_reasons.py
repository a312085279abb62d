"""Why the target is to be stopped before its time, if it is."""

from __future__ import annotations

from pathlib import Path

from stabdiag.intervene.request import Acting
from stabdiag.launch.live import LiveAnalysis


class StopReasons:
    """`--stop-on critical`, `--guard` where the run has diverged, and interventions that ask for it."""

    def __init__(self, run_dir: Path, live: LiveAnalysis, on_critical: bool, acting: Acting) -> None:
        from stabdiag.store.events import read_events

        self._live = live
        self._on_critical = on_critical
        self._acting = acting
        self._events = read_events(run_dir)

    def look(self) -> str:
        """Empty where it may go on."""
        if self._on_critical and self._live.critical:
            return f"--stop-on critical: {self._live.critical.signature}"
        if self._acting.guard and self._live.diverged:
            return f"--guard: {self._live.diverged.signature}"
        return self._asked() if self._acting else ""

    def _asked(self) -> str:
        self._events.refresh()
        asked = (str(e.data.get("because", "")) for e in self._events.records if e.event == "stop")
        return next(asked, "")
