from __future__ import annotations

import json

import numpy as np

from stabdiag.core.event import Event
from stabdiag.core.run import RunInfo
from stabdiag.core.site import Site
from stabdiag.store import jsonl
from stabdiag.store.events import EventLog
from stabdiag.store.follower import Follower
from stabdiag.store.info import write_info
from stabdiag.store.writer import RankWriter


def write(writer: RankWriter, step: int, *names: str) -> None:
    sites = [Site("grad", name, "Linear") for name in names]
    writer.write("grad", step, 0.0, sites, {"norm": np.full(len(names), step, np.float32)})


def test_a_follower_sees_what_comes_and_what_it_gave_stays(tmp_path):
    run_dir = tmp_path / "later"
    follower = Follower(run_dir)
    assert (follower.refresh().steps, follower.refresh().notes) == (0, ())
    run_dir.mkdir()
    write_info(run_dir, RunInfo(command=("train.py",)))
    writer = RankWriter(run_dir, 0)
    write(writer, 0, "a", "b")
    first = follower.refresh()
    assert (first.info.command, first.info.ended, first.info.processes) == (("train.py",), None, 1)

    write(writer, 1, "a", "b")
    write(writer, 2, "b", "c")
    EventLog(run_dir).append(Event("end", 1.0))
    write_info(run_dir, RunInfo(command=("train.py",), ended=9.0))
    second = follower.refresh()
    write(writer, 3, "b", "c")

    np.testing.assert_array_equal(first.table("grad.norm").values, [[0, 0]])
    assert first.events == ()
    assert second.info.ended == 9.0
    assert [event.event for event in second.events] == ["end"]
    np.testing.assert_array_equal(second.table("grad.norm").steps, [0, 1, 2])
    assert [site.module_type for site in second.sites("grad")] == ["Linear"] * 3
    assert follower.refresh().steps == 4


def test_a_row_in_the_making_is_seen_when_it_is_whole(tmp_path):
    writer = RankWriter(tmp_path, 0)
    write(writer, 0, "a")
    write(writer, 1, "a")
    path = tmp_path / "rank-0" / "grad.arrows"
    data = path.read_bytes()
    seen, follower = [], Follower(tmp_path)
    for size in (10, len(data) // 2, len(data) - 1, len(data)):
        path.write_bytes(data[:size])
        run = follower.refresh()
        seen.append((run.steps, run.notes))
    assert [steps for steps, _ in seen] == sorted(steps for steps, _ in seen)
    assert seen[-2:] == [(1, ()), (2, ())]


def test_a_line_in_the_making_is_seen_when_it_is_whole(tmp_path):
    follower = Follower(tmp_path)
    EventLog(tmp_path).append(Event("model", 1.0))
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "en')
        file.flush()
        assert [event.event for event in follower.refresh().events] == ["model"]
        file.write(b'd", "time": 2.0}\n')
    run = follower.refresh()
    assert [event.event for event in run.events] == ["model", "end"]
    assert run.notes == ()


def test_a_line_is_parsed_once(tmp_path, monkeypatch):
    parsed, real = [], json.loads
    monkeypatch.setattr(jsonl.json, "loads", lambda data: parsed.append(data) or real(data))
    follower, log = Follower(tmp_path), EventLog(tmp_path)
    for step in range(5):
        log.append(Event("finding", 1.0, step))
        assert len(follower.refresh().events) == step + 1
    assert sum(b"finding" in bytes(data) for data in parsed) == 5


def test_damage_among_new_rows_is_said(tmp_path):
    writer, follower = RankWriter(tmp_path, 0), Follower(tmp_path)
    write(writer, 0, "a")
    path = tmp_path / "rank-0" / "grad.arrows"
    assert follower.refresh().steps == 1
    with path.open("ab") as file:
        file.write(b"foreign bytes")
    for step in range(1, 5):
        write(writer, step, "a")
    run = follower.refresh()
    assert "is damaged" in run.notes[0]
    np.testing.assert_array_equal(run.table("grad.norm").steps, range(5))
