"""Which step a flight record lets one compute again, and how."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from stabdiag.core.diagnosis import Incident
from stabdiag.core.event import Event
from stabdiag.core.finding import Severity
from stabdiag.core.run import Run


def step_to_replay(run: Run, incidents: Sequence[Incident]) -> int | None:
    """Where the first critical incident began, if a record holds that step, and its batch where it has any;
    else the last step of the first record. None where there is no record, or it began before all of them:
    no step that they hold tells how."""
    records = [event for event in run.events_of("flight") if isinstance(event.step, int)]
    onset = next((i.onset_step for i in incidents if i.severity is Severity.critical), None)
    kept = {step for record in records for step in record.data.get("batches") or ()}
    within = onset is not None and any(_first(r) <= onset <= (r.step or 0) for r in records)
    if within and (not kept or onset in kept):
        return onset
    reaches = onset is None or any(_first(record) <= onset for record in records)
    return records[0].step if records and reaches else None


def _first(record: Event) -> int:
    first = record.data.get("first")
    return first if isinstance(first, int) else 0


def replay_command(path: Path | None, step: int) -> str:
    return " ".join(["stabdiag replay", *([shlex.quote(str(path))] if path else []), f"--step {step}"])
