"""Events, run.json and findings.json."""

from __future__ import annotations

import json
import math
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from stabdiag.core.diagnosis import Diagnosis, FixAdvice, Incident, Skipped
from stabdiag.core.errors import DamagedRun, StabdiagError
from stabdiag.core.event import Event
from stabdiag.core.finding import CauseRanked, Evidence, Finding, Severity
from stabdiag.core.run import RunInfo
from stabdiag.core.site import Site
from stabdiag.store import files
from stabdiag.store.events import EventLog
from stabdiag.store.findings import read_findings, write_findings
from stabdiag.store.info import read_info, write_info
from stabdiag.store.reader import load
from stabdiag.store.sites import append_sites

INFO = RunInfo(
    command=("train.py", "--lr", "3e-3"), started=1.5, ended=2.5, exit_status=-9, signal="SIGKILL",
    world_size=2, host="h", versions={"torch": "2.4"}, device="cpu", configuration={"every": 10},
)  # fmt: skip
FINDING = Finding(
    signature="exploding-gradient", severity=Severity.critical, confidence=0.9, sites=("blocks.3",),
    onset_step=4, peak_step=6, last_step=9, message="the gradient of <blocks.3> grew",
    value=4.0, threshold=1.0,
    evidence=(Evidence("grad.norm", ("blocks.3",), 1.0, (0.1, 0.3), log=True),), facts={"lr": 0.1},
    causes=(CauseRanked("lr-too-high", 0.8, "it fell below"),), fixes=("lower-lr",),
)  # fmt: skip
FIX = FixAdvice("lower-lr", "Lower it", "lower it to 0.5", "lr = 0.5", {"lr": 0.5})
DIAGNOSIS = Diagnosis(
    verdict="unstable",
    incidents=(
        Incident(
            Severity.critical, 0, (0,), 4, FINDING.causes[0], (FIX,)
        ),
    ),
    findings=(FINDING,),
    skipped=(Skipped("dead-activations", "output.zeros was not recorded"),),
    run={"path": "runs/a", "steps": 10},
)  # fmt: skip


def test_an_event_is_read_as_it_was_written(tmp_path):
    written = [
        Event("model", 1.0, None, 0, {"name": "GPT", "parameters": 12}),
        Event("nonfinite", 2.0, 7, 1, {"what": "loss", "sites": ["a", "ü"]}),
    ]
    log = EventLog(tmp_path)
    for event in written:
        log.append(event)
    assert load(tmp_path).events == tuple(written)


def test_any_data_of_an_event_is_plain_json(tmp_path):
    values = {
        "nan": math.nan, "inf": [math.inf, {"deep": -math.inf}], "numpy": np.float32("nan"),
        "array": np.array([1.0, np.inf]), "path": Path("a/b"), "set": {"y", "x"},
        "integer": np.int64(3), "text": "a\nb\ud800",
    }  # fmt: skip
    EventLog(tmp_path).append(Event("recorder-error", 1.0, data=values))

    def refuse(constant):
        raise AssertionError(constant)

    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse) == {
        "event": "recorder-error", "time": 1.0, "step": None, "rank": 0,
        "nan": None, "inf": [None, {"deep": None}], "numpy": None, "array": [1.0, None],
        "path": "a/b", "set": ["x", "y"], "integer": 3, "text": "a\nb\ud800",
    }  # fmt: skip


def test_an_event_after_a_torn_line_has_a_line_of_its_own(tmp_path):
    log = EventLog(tmp_path)
    log.append(Event("model", 1.0))
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "opti')
    log.append(Event("end", 2.0))
    run = load(tmp_path)
    assert [event.event for event in run.events] == ["model", "end"]
    assert len(run.notes) == 1


def _append_much(run_dir: Path, rank: int) -> None:
    log = EventLog(run_dir)
    for step in range(200):
        log.append(Event("finding", 1.0, step, rank, {"message": "x" * (step * 7 % 400)}))
        append_sites(run_dir, rank, [Site("grad", f"layers.{step}.{i}") for i in range(3)])


def test_several_ranks_append_to_the_same_files(tmp_path):
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_append_much, args=(tmp_path, rank)) for rank in range(4)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
        assert process.exitcode == 0
    run = load(tmp_path)
    assert run.notes == ()
    for rank in range(4):
        assert [event.step for event in run.events if event.rank == rank] == list(range(200))
    described = [json.loads(line) for line in (tmp_path / "sites.jsonl").read_text().splitlines()]
    assert len(described) == 4 * 200 * 3


def test_run_json_is_read_as_it_was_written(tmp_path):
    write_info(tmp_path, INFO)
    assert read_info(tmp_path) == (INFO, "")
    assert json.loads((tmp_path / "run.json").read_text())["schema"] == "stabdiag.run/1"


def test_a_document_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    write_info(tmp_path, INFO)

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StabdiagError, match=r"run\.json cannot be written: No space left"):
        write_info(tmp_path, RunInfo())
    assert read_info(tmp_path) == (INFO, "")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_whoever_reads_while_a_document_is_replaced_sees_a_whole_one(tmp_path, monkeypatch):
    write_info(tmp_path, INFO)
    original = Path.write_bytes
    seen = []

    def write(self, data):
        original(self, data)
        seen.append(read_info(tmp_path))
        return len(data)

    monkeypatch.setattr(Path, "write_bytes", write)
    files.replace(tmp_path / "run.json", {"schema": "stabdiag.run/1"})
    assert seen == [(INFO, "")]


def test_a_diagnosis_is_read_as_it_was_written(tmp_path):
    write_findings(tmp_path, DIAGNOSIS)
    assert read_findings(tmp_path) == DIAGNOSIS


def test_a_run_without_a_diagnosis_says_so(tmp_path):
    with pytest.raises(DamagedRun, match="was not diagnosed yet"):
        read_findings(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "stabdiag.report/1", "incidents": 3}'])
def test_a_damaged_diagnosis_is_a_clear_error(tmp_path, text):
    (tmp_path / "findings.json").write_text(text)
    with pytest.raises(DamagedRun, match="is damaged"):
        read_findings(tmp_path)


def test_a_diagnosis_of_a_newer_version_is_a_clear_error(tmp_path):
    (tmp_path / "findings.json").write_text('{"schema": "stabdiag.report/2"}')
    with pytest.raises(DamagedRun, match="newer stabdiag"):
        read_findings(tmp_path)
