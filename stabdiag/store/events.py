"""events.jsonl: what happened once, one line each, shared by all processes of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stabdiag.core.event import Event
from stabdiag.core.redaction import redacted_command, redacted_record
from stabdiag.store.jsonl import JsonLines, append_lines

NAME = "events.jsonl"


class EventLog:
    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / NAME

    def append(self, event: Event) -> None:
        """One line, one write, without secrets. Raises OSError."""
        record = event.to_json()
        if "argv" in record:
            record["argv"] = redacted_command(record["argv"])
        append_lines(self._path, [redacted_record(record)])


def read_events(run_dir: Path) -> JsonLines[Event]:
    """Nothing is read before its first `refresh`."""
    return JsonLines(run_dir / NAME, _event)


def _event(record: dict[str, Any]) -> Event:
    event = Event.from_json(record)
    if not isinstance(event.step, int | None):
        raise TypeError("a step is a whole number")
    return event
