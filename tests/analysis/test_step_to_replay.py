"""Which step a report offers to compute again, and what it says of the record."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from stabdiag.analysis.diagnose import diagnose
from stabdiag.analysis.flight import step_to_replay
from stabdiag.core.diagnosis import Batch, Culprit, Incident
from stabdiag.core.event import Event
from stabdiag.core.finding import Severity
from stabdiag.core.run import Run, RunInfo
from stabdiag.core.synthetic import run_of
from stabdiag.render.describe import kept_steps, next_commands
from stabdiag.render.json_report import report_schema


def run_with(*records: tuple[int, int, list[int]]) -> Run:
    made = run_of({"run.loss": np.ones(500)})
    events = [
        Event("flight", time.time(), last, 0, {"because": "x", "first": first, "batches": batches})
        for first, last, batches in records
    ]
    return Run(RunInfo(), made.kinds, events, Path("runs/a b"))


def incident(onset: int, severity: Severity = Severity.critical) -> Incident:
    return Incident(severity, 0, (0,), onset, None, ())


def of_a_batch(onset: int) -> Incident:
    return replace(incident(onset), culprit=Culprit(batch=Batch(onset)))


@pytest.mark.parametrize(
    ("records", "incidents", "step"),
    [
        ([], [incident(100)], None),
        ([(60, 123, [])], [incident(100)], 100),
        ([(60, 123, [])], [incident(10)], 123),
        ([(60, 123, [])], [of_a_batch(10)], None),
        ([(60, 123, [])], [of_a_batch(100)], 100),
        ([(60, 123, [122, 123])], [of_a_batch(100)], 123),
        ([], [of_a_batch(100)], None),
        ([(60, 123, [])], [incident(100, Severity.warning)], 123),
        ([(60, 123, []), (200, 263, [])], [incident(210)], 210),
        ([(60, 123, [122, 123])], [incident(100)], 123),
        ([(60, 123, [122, 123])], [incident(122)], 122),
        ([(60, 123, [])], [], 123),
    ],
)
def test_it_is_where_it_began_as_far_as_the_record_reaches(records, incidents, step):
    assert step_to_replay(run_with(*records), incidents) == step


def test_the_report_says_what_was_kept_and_how_to_compute_it_again():
    run = run_with((60, 123, [122, 123]))
    assert (
        kept_steps(run, incident(100)) == "steps 60 to 123 at full rate, and 2 batches, to be computed again"
    )
    assert kept_steps(run, incident(10)) == ""
    diagnosis = diagnose(run)
    assert diagnosis.run["replay"] == "stabdiag replay 'runs/a b' --step 123"
    assert "stabdiag replay 'runs/a b' --step 123" in next_commands(run, diagnosis)
    jsonschema.validate(diagnosis.to_json(), report_schema())


def test_without_a_record_nothing_is_offered():
    diagnosis = diagnose(run_with())
    assert diagnosis.run["replay"] is None
    assert not any("replay" in command for command in next_commands(run_with(), diagnosis))
