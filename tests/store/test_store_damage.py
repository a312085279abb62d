"""Any prefix of any file, and bytes that rotted."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabdiag.core.errors import DamagedRun
from stabdiag.core.event import Event
from stabdiag.core.run import RunInfo
from stabdiag.store.events import EventLog
from stabdiag.store.info import write_info
from stabdiag.store.layout import RowLayout, schema_of
from stabdiag.store.reader import load

ROWS, NAMES = 6, ("embed", "blocks.0", "head")
SCHEMA = schema_of("output", 0, NAMES, ("rms", "absmax", "nonfinite"))
HEAD, ROW = len(SCHEMA.serialize()), len(RowLayout(SCHEMA).form)
ARROWS = "rank-0/output.arrows"


@pytest.fixture(scope="module")
def original(tmp_path_factory, record):
    run_dir = tmp_path_factory.mktemp("original") / "run"
    written = record(run_dir, ROWS, NAMES)
    for step in range(3):
        EventLog(run_dir).append(Event("finding", 1.0, step, data={"message": "loss ↑"}))
    return run_dir, written


@pytest.fixture(scope="module")
def damaged(original, tmp_path_factory):
    """A copy of the run in which one file was replaced."""
    copy = tmp_path_factory.mktemp("damaged") / "run"

    def replace(name, data):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(original[0], copy)
        (copy / name).write_bytes(data)
        return copy

    return replace


def test_the_layout_is_what_lies_in_the_file(original):
    assert (original[0] / ARROWS).stat().st_size == HEAD + ROWS * ROW


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, HEAD + ROWS * ROW))
def test_a_file_cut_at_any_byte_gives_the_whole_rows_before_it(original, damaged, cut):
    run_dir, written = original
    run = load(damaged(ARROWS, (run_dir / ARROWS).read_bytes()[:cut]))
    rows = max(0, cut - HEAD) // ROW
    assert run.notes == ()
    np.testing.assert_array_equal(run.kinds["output"].steps, 10 * np.arange(rows))
    for statistic, array in written.items():
        if f"output.{statistic}" in run:
            np.testing.assert_array_equal(run.kinds["output"].values[statistic], array[:rows])
        else:
            assert rows == 0


@pytest.mark.parametrize("name", ["events.jsonl", "sites.jsonl"])
def test_lines_cut_at_any_byte_give_the_whole_lines_before_it(original, damaged, name):
    data = (original[0] / name).read_bytes()
    for cut in range(0, len(data) + 1, 7):
        run = load(damaged(name, data[:cut]))
        assert run.notes == ()
        described = [site for site in run.sites("output") if site.module_type]
        assert len(run.events if name == "events.jsonl" else described) == data[:cut].count(b"\n")


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from([ARROWS, "sites.jsonl", "events.jsonl", "run.json"]),
    place=st.floats(0, 1, exclude_max=True),
    junk=st.binary(min_size=1, max_size=40),
)
def test_random_bytes_anywhere_never_stop_the_reader(original, damaged, name, place, junk):
    data = bytearray((original[0] / name).read_bytes())
    at = int(place * len(data))
    data[at : at + len(junk)] = junk
    run = load(damaged(name, bytes(data)))
    assert isinstance(run.notes, tuple)
    for kind in run.kinds.values():
        assert (np.diff(kind.steps) > 0).all()
        assert all(array.shape == (len(kind.steps), len(kind.sites)) for array in kind.values.values())


@pytest.mark.parametrize("row", range(ROWS))
def test_a_row_whose_head_is_damaged_is_left_out_and_that_is_said(original, damaged, row):
    run_dir, written = original
    data = bytearray((run_dir / ARROWS).read_bytes())
    data[HEAD + row * ROW + 20] ^= 0xFF
    run = load(damaged(ARROWS, bytes(data)))
    assert run.notes == ("rank-0/output.arrows is damaged: 5 of about 6 rows could be read",)
    np.testing.assert_array_equal(run.table("output.rms").values, np.delete(written["rms"], row, axis=0))


@pytest.mark.parametrize("change", [b"", b"some bytes that nobody wrote"])
def test_rows_are_found_again_after_bytes_that_went_or_came(original, damaged, change):
    run_dir, written = original
    data = (run_dir / ARROWS).read_bytes()
    middle = HEAD + 3 * ROW - 30  # among the numbers of row 2
    run = load(damaged(ARROWS, data[:middle] + change + data[middle + 11 :]))
    assert "is damaged" in run.notes[0]
    found = run.kinds["output"].steps // 10
    # Too many bytes in row 2 may lie behind it or in it; too few must be in it.
    assert {0, 1, 3, 4, 5} <= set(found) <= ({0, 1, 2, 3, 4, 5} if change else {0, 1, 3, 4, 5})
    whole = np.isin(found, [0, 1, 3, 4, 5])
    np.testing.assert_array_equal(run.table("output.rms").values[whole], np.delete(written["rms"], 2, axis=0))


def test_a_schema_that_is_damaged_costs_its_file_alone(original, damaged, record):
    data = bytearray((original[0] / ARROWS).read_bytes())
    data[4:8] = b"\xf0\xff\xff\x7f"
    run_dir = damaged(ARROWS, bytes(data))
    record(run_dir, kind="grad")
    run = load(run_dir)
    assert len(run.notes) == 1
    assert run.notes[0].startswith("rank-0/output.arrows could not be read")
    assert run.steps == 51
    assert "output.rms" not in run


def test_damaged_lines_are_left_out_and_that_is_said(original, damaged):
    lines = (original[0] / "events.jsonl").read_bytes().splitlines()
    for bad in (
        b"{",
        b"[]",
        b'{"time": 1}',
        b'{"event": "end", "time": "soon"}',
        b'{"event": "a", "step": "x"}',
    ):
        run = load(damaged("events.jsonl", b"\n".join([lines[0], bad, *lines[1:], b""])))
        assert len(run.events) == 3
        assert run.notes == ("events.jsonl: 1 damaged line(s) were left out",)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema": "other/1"}', '{"schema": "stabdiag.run/1", "command": 3}']
)
def test_a_damaged_run_json_is_said_and_the_rest_is_read(original, damaged, text):
    run = load(damaged("run.json", text.encode()))
    assert run.notes == ("run.json is damaged",)
    assert (run.steps, len(run.events)) == (51, 3)


def test_a_run_of_a_newer_version_is_a_clear_error(tmp_path):
    write_info(tmp_path, RunInfo())
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, "later": 1}))
    assert load(tmp_path).info == RunInfo(processes=0)
    (tmp_path / "run.json").write_text(json.dumps({**record, "schema": "stabdiag.run/2"}))
    with pytest.raises(DamagedRun, match="newer stabdiag") as error:
        load(tmp_path)
    assert "upgrade" in error.value.hint
