"""What a target leaves in its flight record, however it ended."""

from __future__ import annotations

import signal

import pytest

from stabdiag.reference.kept_step import calls_of
from stabdiag.store.findings import read_findings
from stabdiag.store.flight import flight_records
from stabdiag.store.reader import load

TRAINING = """
import os, signal, sys, time
import torch
torch.set_num_threads(1)
model = torch.nn.Linear(4, 1)
uphill = "UPHILL" in os.environ
optimizer = torch.optim.SGD(model.parameters(), lr=0.5 if uphill else 0.01, maximize=uphill)
for step in range(120):
    batch = torch.full((8, 4), 1.0 + step)
    if step == 90:
        exec(os.environ.get("AT_90", ""))
    optimizer.zero_grad()
    (model(batch) / (1 + step)).square().mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
"""


@pytest.fixture
def run(workshop):
    """The run, its flight records and the process, of a training that does `at_90` before step 90."""

    def train(at_90: str, *options: str, **more: str):
        workshop.write("train.py", TRAINING)
        done = workshop.run(*options, "train.py", AT_90=at_90, **more)
        recorded = load(workshop.run_directory())
        assert list(recorded.events_of("recorder-error")) == [], done.stderr
        return recorded, flight_records(workshop.run_directory()), done

    return train


@pytest.mark.slow
def test_after_sigkill_the_ring_is_the_record(run):
    recorded, (record,), done = run("os.kill(os.getpid(), signal.SIGKILL)", "--every", "5")
    assert done.returncode == -signal.SIGKILL
    assert record.steps == list(range(26, 90))
    assert list(record.rows["max"][:, 0]) == [1.0 + step for step in record.steps]
    (event,) = recorded.events_of("flight")
    assert "SIGKILL" in event.data["because"]
    assert (event.step, event.data["first"]) == (89, 26)
    command = read_findings(recorded.path).run["replay"]
    assert command == f"stabdiag replay stabdiag-runs/{recorded.path.name} --step 89"
    assert "stabdiag replay" in done.stderr


@pytest.mark.slow
def test_after_sigkill_steps_of_no_tier_are_there_but_for_the_last_31(run):
    _, (record,), _ = run("os.kill(os.getpid(), signal.SIGKILL)", "--budget", "0.000001%")
    assert record.steps[-1] >= 89 - 31
    assert record.steps == list(range(record.steps[0], record.steps[-1] + 1))


@pytest.mark.slow
def test_sigterm_ends_the_target_as_ever_and_the_batches_are_written(run):
    recorded, (record,), done = run("os.kill(os.getpid(), signal.SIGTERM)", "--keep-batches", "2")
    assert done.returncode == -signal.SIGTERM
    assert "SIGTERM" in record.because
    assert record.steps[-1] == 89
    (((batch,), _),) = calls_of(record.batches[89])
    assert batch.unique().tolist() == [90.0]
    assert [event.step for event in recorded.events_of("flight")] == [89]


@pytest.mark.slow
def test_a_handler_of_the_scripts_own_takes_the_place_of_ours(run):
    at_90 = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); os.kill(os.getpid(), signal.SIGTERM)"
    _, records, done = run(at_90, "--keep-batches", "2")
    assert done.returncode == 7
    assert [record.step for record in records] == [None]


@pytest.mark.slow
def test_an_exception_writes_it_and_changes_nothing_of_what_is_printed(run):
    _, (record,), done = run("raise KeyError('planted')", "--keep-batches", "1")
    assert done.returncode == 1
    assert "KeyError: 'planted'" in done.stderr
    assert "stabdiag/" not in done.stderr.partition("Traceback")[2].partition("KeyError")[0]
    assert record.because == "the script ended with KeyError"
    assert list(record.batches) == [89]


@pytest.mark.slow
def test_a_critical_finding_of_the_live_analysis_has_it_written_while_training_goes_on(run):
    recorded, records, done = run("time.sleep(6)", "--every", "1", UPHILL="1")
    assert done.returncode == 0
    diagnosis = read_findings(recorded.path)
    assert diagnosis.critical
    assert " since step " in records[0].because
    assert records[0].step == 90
    assert diagnosis.run["replay"]


@pytest.mark.slow
def test_a_healthy_run_keeps_none(run):
    recorded, records, done = run("")
    assert done.returncode == 0
    assert records == []
    assert not (recorded.path / "flight").exists()
    assert read_findings(recorded.path).run["replay"] is None
