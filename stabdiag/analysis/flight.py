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
    else the last step of the first record. None where there is no record, or where it began with a batch that
    none of them reaches back to: no other step shows it."""
    records = [event for event in run.events_of("flight") if isinstance(event.step, int)]
    first = next((i for i in incidents if i.severity is Severity.critical), None)
    if first is None or not records:
        return records[0].step if records else None
    onset, kept = first.onset_step, {step for record in records for step in record.data.get("batches") or ()}
    within = any(_first(record) <= onset <= (record.step or 0) for record in records)
    if within and (not kept or onset in kept):
        return onset
    of_a_batch = first.culprit is not None and first.culprit.batch is not None
    return None if of_a_batch and not within else records[0].step


def _first(record: Event) -> int:
    first = record.data.get("first")
    return first if isinstance(first, int) else 0


def replay_command(path: Path | None, step: int) -> str:
    return " ".join(["stabdiag replay", *([shlex.quote(str(path))] if path else []), f"--step {step}"])
