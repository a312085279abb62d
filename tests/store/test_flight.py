"""The ring of the flight record: order, prefixes, what is not one, and what stays of it at the end."""

from __future__ import annotations

import io
import json
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabdiag.core.event import Event
from stabdiag.store.events import EventLog, read_events
from stabdiag.store.flight import (
    SLOTS,
    STEPS,
    ask_for_record,
    flight_records,
    in_order,
    read_rows,
    row_type,
    settle,
    wanted,
)
from stabdiag.store.flight_ring import Ring

PARAMETERS, INPUTS = ("a", "b", "c"), ("x",)


def ring(run_dir: Path, parameters=PARAMETERS, inputs=INPUTS, rank=0) -> Ring:
    kind = row_type(len(parameters), len(inputs), 8, (0, 0))
    return Ring(run_dir / "flight" / f"rank-{rank}", kind, parameters, inputs, {"threads": 1})


def values(step: int) -> dict:
    return {
        "loss": step / 2,
        "grad": np.arange(3, dtype=np.float32) + step,
        "fingerprint": {"x": step},
        "torch": np.full(8, step % 256, np.uint8),
    }


def filled(run_dir: Path, steps: int, **more) -> Ring:
    made = ring(run_dir, **more)
    for step in range(steps):
        made.add(step, values(step))
    return made


@settings(max_examples=25, deadline=None)
@given(first=st.integers(0, 10**6), count=st.integers(1, 3 * SLOTS))
def test_the_ring_holds_the_last_64_steps_in_order(tmp_path_factory, first, count):
    folder = tmp_path_factory.mktemp("ring")
    made = ring(folder)
    for step in range(first, first + count):
        made.add(step, values(step))
    expected = list(range(max(first, first + count - SLOTS), first + count))
    (record,) = flight_records(folder)
    assert record.steps == expected == list(in_order(made.rows)["step"])
    assert made.span() == (expected[0], expected[-1])
    np.testing.assert_array_equal(record.rows["loss"], np.array(expected, np.float32) / 2)
    np.testing.assert_array_equal(record.rows["grad"][:, 2], np.array(expected, np.float32) + 2)
    np.testing.assert_array_equal(record.rows["fingerprint"][:, 0], np.array(expected, np.float32))


def test_what_a_step_leaves_out_is_blank_and_not_what_was_there_64_steps_before(tmp_path):
    made = filled(tmp_path, SLOTS + 1)
    made.add(SLOTS + 1, {"loss": 1.0})
    row = in_order(made.rows)[-1]
    assert row["step"] == SLOTS + 1
    assert np.isnan(row["grad"]).all()
    assert np.isnan(row["fingerprint"]).all()
    assert not row["torch"].any()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_prefix_of_the_file_is_read(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("prefix")
    filled(folder, 40)
    path = folder / "flight" / "rank-0" / STEPS
    whole = read_rows(path)
    size = data.draw(st.integers(0, path.stat().st_size))
    path.write_bytes(path.read_bytes()[:size])
    records = flight_records(folder)
    rows = records[0].rows if records else whole[:0]
    assert rows.tobytes() == in_order(whole)[: len(rows)].tobytes()
    assert len(rows) >= min(40, size // whole.dtype.itemsize - 1)


def test_a_row_that_was_cut_by_a_kill_is_left_out(tmp_path):
    made = filled(tmp_path, SLOTS + 5)
    size = made.rows.itemsize
    made.add(SLOTS + 5, values(SLOTS + 5))
    path = tmp_path / "flight" / "rank-0" / STEPS
    content = bytearray(path.read_bytes())
    end = len(content) - (SLOTS - 6) * size
    content[end - 8 : end] = (5).to_bytes(8, "little")  # of the row that stood there before
    path.write_bytes(content)
    (record,) = flight_records(tmp_path)
    assert record.steps == list(range(6, SLOTS + 5))


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filled(tmp_path, 3)
    path = tmp_path / "flight" / "rank-0" / STEPS
    objects = io.BytesIO()
    np.save(objects, np.array([Bomb()], object), allow_pickle=True)
    for content in (pickle.dumps(Bomb()), objects.getvalue(), b"", b"\x93NUMPY", os.urandom(300)):
        path.write_bytes(content)
        assert flight_records(tmp_path) == []
    assert not Path("unpickled").exists()


@pytest.mark.parametrize(
    "kind",
    [
        np.dtype("<f8"),
        np.dtype([("step", "<i8"), ("check", "<i8")]),
        np.dtype([(name, row_type(1, 1, 8, (0, 0))[name]) for name in row_type(1, 1, 8, (0, 0)).names[::-1]]),
    ],
    ids=["numbers", "two fields", "another order"],
)
def test_an_array_of_something_else_is_no_record(tmp_path, kind):
    filled(tmp_path, 3)
    np.save(tmp_path / "flight" / "rank-0" / STEPS, np.zeros(64, kind))
    assert flight_records(tmp_path) == []


@pytest.mark.parametrize("about", [b"{", b"[]", b'{"schema": "stabdiag.flight/1"}', b'{"schema": "other/1"}'])
def test_a_record_without_its_names_is_none(tmp_path, about):
    filled(tmp_path, 3)
    (tmp_path / "flight" / "rank-0" / "about.json").write_bytes(about)
    assert flight_records(tmp_path) == []


def test_numpy_opens_the_file_alone(tmp_path):
    filled(tmp_path, 3)
    rows = np.load(tmp_path / "flight" / "rank-0" / STEPS, allow_pickle=False)
    assert list(rows["step"][:4]) == [0, 1, 2, -1]


def test_parameters_and_inputs_that_come_later_get_a_place_and_earlier_rows_keep_theirs(tmp_path):
    before = filled(tmp_path, 70)
    after = ring(tmp_path, ("c", "new", "a"), ("y", "x"))
    after.take_over(before)
    (record,) = flight_records(tmp_path)
    assert record.steps == list(range(6, 70))
    assert record.parameters == ("c", "new", "a")
    np.testing.assert_array_equal(record.rows["grad"][0], np.array([8, np.nan, 6], np.float32))
    np.testing.assert_array_equal(record.rows["fingerprint"][0], np.array([np.nan, 6], np.float32))


def test_a_full_disk_leaves_the_ring_in_memory(tmp_path, monkeypatch):
    made = ring(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    made.add(0, values(0))
    assert made.span() == (0, 0)


def test_states_that_are_the_same_before_and_after_are_those_in_between(tmp_path):
    made = ring(tmp_path)
    state, other = np.arange(625, dtype=np.uint32), np.arange(1, 626, dtype=np.uint32)
    kept = {0: state, 3: state, 5: other, 7: other}
    for step in range(9):
        own = {"python": kept[step], "python_gauss": np.nan} if step in kept else {}
        made.add(step, {**values(step), **own})
    folder = tmp_path / "flight" / "rank-0" / "step-8"
    folder.mkdir()
    made.save(folder, 8, "a reason", {"python": other, "python_gauss": np.nan})
    record = flight_records(tmp_path)[0]
    assert (record.step, record.because) == (8, "a reason")
    known = {step: int(row["python"][1]) for step, row in zip(record.steps, record.rows, strict=True)}
    assert known == {0: 1, 1: 1, 2: 1, 3: 1, 4: 0, 5: 2, 6: 2, 7: 2, 8: 2}
    assert not record.rows["numpy"].any()


def test_a_normal_number_that_is_held_back_makes_another_state(tmp_path):
    made = ring(tmp_path)
    state = np.arange(625, dtype=np.uint32)
    for step, gauss in ((0, np.nan), (1, None), (2, 0.5)):
        own = {} if gauss is None else {"python": state, "python_gauss": gauss}
        made.add(step, {**values(step), **own})
    folder = tmp_path / "flight" / "rank-0" / "step-2"
    folder.mkdir()
    made.save(folder, 2, "", {})
    assert [bool(row["python"].any()) for row in flight_records(tmp_path)[0].rows] == [True, False, True]


def saved(made: Ring, run_dir: Path, step: int) -> None:
    folder = run_dir / "flight" / "rank-0" / f"step-{step}"
    folder.mkdir()
    made.save(folder, step, "planted", {})


@pytest.mark.parametrize(
    ("died", "critical", "written", "stays"),
    [
        ("", "", None, False),
        ("killed", "", None, True),
        ("", "loss-divergence", None, True),
        ("killed", "", 9, False),  # the record that was written last has it all
        ("killed", "loss-divergence", 4, True),
        ("", "loss-divergence", 4, False),  # of what it says, the earlier one holds more
    ],
)
def test_at_the_end_a_ring_stays_where_it_tells_something(tmp_path, died, critical, written, stays):
    made = filled(tmp_path, 10 if written is None else written + 1)
    if written is not None:
        saved(made, tmp_path, written)
    for step in range(10):
        made.add(step, values(step))
    EventLog(tmp_path).append(Event("end", time.time()))
    assert settle(tmp_path, died, critical) is stays
    live = [record for record in flight_records(tmp_path) if record.step is None]
    assert bool(live) is stays
    assert (tmp_path / "flight").exists() is (stays or written is not None)
    events = read_events(tmp_path)
    events.refresh()
    told = [event for event in events.records if event.event == "flight"]
    assert [(e.step, e.data["first"], e.data["because"]) for e in told] == (
        [(9, 0, died or critical)] if stays else []
    )


def test_a_record_is_asked_for_by_a_file(tmp_path):
    flight = tmp_path / "flight"
    ask_for_record(tmp_path, "too early")
    assert not flight.exists()
    filled(tmp_path, 1)
    assert wanted(flight) == ""
    ask_for_record(tmp_path, "loss-divergence since step 3")
    assert wanted(flight) == "loss-divergence since step 3"
    assert json.loads((flight / "wanted").read_text())["schema"] == "stabdiag.flight/1"
    settle(tmp_path, "", "")
    assert not flight.exists()
