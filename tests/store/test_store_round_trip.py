from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stabdiag.core.errors import DamagedRun, StabdiagError
from stabdiag.core.event import Event
from stabdiag.core.run import RunInfo
from stabdiag.core.site import Site
from stabdiag.store import segment
from stabdiag.store.events import EventLog
from stabdiag.store.info import write_info
from stabdiag.store.layout import schema_of
from stabdiag.store.reader import load
from stabdiag.store.writer import RankWriter


def row(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_what_was_written_is_read(tmp_path, record):
    written = record(tmp_path)
    run = load(tmp_path)
    assert run.notes == ()
    assert run.series == ("output.rms", "output.absmax", "output.nonfinite")
    data = run.kinds["output"]
    np.testing.assert_array_equal(data.steps, [0, 10, 20, 30, 40, 50])
    np.testing.assert_array_equal(data.times, 100.0 + np.arange(6))
    assert (data.steps.dtype, data.times.dtype) == (np.int64, np.float64)
    for statistic, array in written.items():
        assert data.values[statistic].dtype == np.float32
        np.testing.assert_array_equal(data.values[statistic], array)
    assert data.sites[1] == Site("output", "blocks.0", "Linear", (4, 2), "float32", 1)


@pytest.mark.parametrize("sites", [0, 1, 2, 7])
def test_any_number_of_sites_is_kept(tmp_path, record, sites):
    written = record(tmp_path, names=[f"layers.{i}" for i in range(sites)])
    data = load(tmp_path).kinds["output"]
    assert len(data.sites) == sites
    for statistic, array in written.items():
        np.testing.assert_array_equal(data.values[statistic], array)


def test_values_that_are_no_numbers_are_kept(tmp_path):
    RankWriter(tmp_path, 0).write(
        "grad", 0, 0.0, [Site("grad", n) for n in "abc"], {"norm": row(np.nan, np.inf, -np.inf)}
    )
    np.testing.assert_array_equal(load(tmp_path).table("grad.norm").values, [[np.nan, np.inf, -np.inf]])


def test_the_numbers_of_one_segment_are_views_of_the_file(tmp_path, record):
    record(tmp_path)
    values = load(tmp_path).table("output.absmax").values
    assert not values.flags.owndata
    assert not values.flags.writeable
    assert values.strides[0] > values.shape[1] * 4


def test_pyarrow_alone_opens_every_file(tmp_path, record):
    written = record(tmp_path)
    with pa.OSFile(str(tmp_path / "rank-0" / "output.arrows")) as file:
        table = pa.ipc.open_stream(file).read_all()
    assert table.schema.equals(schema_of("output", 0, ["embed", "blocks.0", "head"], list(written)))
    assert table.schema.metadata == {
        b"kind": b"output",
        b"rank": b"0",
        b"sites": b'["embed", "blocks.0", "head"]',
    }
    assert table.column("step").to_pylist() == [0, 10, 20, 30, 40, 50]
    np.testing.assert_array_equal(np.array(table.column("rms").to_pylist(), np.float32), written["rms"])


def test_a_stream_that_pyarrow_wrote_itself_is_read(tmp_path):
    schema = schema_of("output", 0, ["a", "b"], ["rms"])
    (tmp_path / "rank-0").mkdir()
    with pa.ipc.new_stream(str(tmp_path / "rank-0" / "output.arrows"), schema) as stream:
        for first in (0, 2):
            values = pa.array([[first, 0.5], [first + 1, 0.5]], schema.field("rms").type)
            columns = [pa.array([first, first + 1]), pa.array([0.0, 1.0]), values]
            stream.write_batch(pa.record_batch(columns, schema=schema))
    run = load(tmp_path)
    assert run.notes == ()
    np.testing.assert_array_equal(run.kinds["output"].steps, [0, 1, 2, 3])
    np.testing.assert_array_equal(run.table("output.rms").column("a"), [0, 1, 2, 3])


def test_new_sites_open_a_segment_that_pyarrow_opens_too_and_the_reader_merges(tmp_path):
    a, b, c = (Site("weight", name, order=i) for i, name in enumerate("abc"))
    writer = RankWriter(tmp_path, 0)
    writer.write("weight", 0, 0.0, [a, b], {"norm": row(1, 2)})
    writer.write("weight", 5, 5.0, [b, c], {"norm": row(3, 4)})
    writer.write("weight", 9, 9.0, [b, c], {"norm": row(5, 6), "absmax": row(7, 8)})
    assert sorted(path.name for path in (tmp_path / "rank-0").iterdir()) == [
        "weight-1.arrows",
        "weight-2.arrows",
        "weight.arrows",
    ]
    second = pa.ipc.open_stream(pa.OSFile(str(tmp_path / "rank-0" / "weight-1.arrows"))).read_all()
    assert second.column("norm").to_pylist() == [[3.0, 4.0]]
    run, nan = load(tmp_path), np.nan
    assert run.sites("weight") == (a, b, c)
    np.testing.assert_array_equal(run.kinds["weight"].steps, [0, 5, 9])
    np.testing.assert_array_equal(run.kinds["weight"].times, [0, 5, 9])
    np.testing.assert_array_equal(run.table("weight.norm").values, [[1, 2, nan], [nan, 3, 4], [nan, 5, 6]])
    np.testing.assert_array_equal(run.table("weight.absmax").values, [[nan] * 3, [nan] * 3, [nan, 7, 8]])


def test_sites_that_alternate_share_two_segments(tmp_path):
    writer = RankWriter(tmp_path, 0)
    for step in range(20):
        name = "discriminator" if step % 2 else "generator"
        writer.write("grad", step, 0.0, [Site("grad", name)], {"norm": row(step)})
    assert len(list((tmp_path / "rank-0").iterdir())) == 2
    table = load(tmp_path).table("grad.norm")
    np.testing.assert_array_equal(table.steps, range(20))
    np.testing.assert_array_equal(table.column("generator")[::2], range(0, 20, 2))
    assert np.isnan(table.column("generator")[1::2]).all()


def test_ever_new_sites_do_not_use_up_the_descriptors_of_the_process(tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    writer = RankWriter(tmp_path, 0)
    for step in range(50):
        writer.write("batch", step, 0.0, [Site("batch", f"input-{step}")], {"rms": row(step)})
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 8
    np.testing.assert_array_equal(load(tmp_path).kinds["batch"].steps, range(50))


def test_a_statistic_that_a_row_lacks_is_nan_there_and_opens_no_segment(tmp_path):
    writer, site = RankWriter(tmp_path, 0), [Site("grad", "w")]
    writer.write("grad", 0, 0.0, site, {"norm": row(1), "absmax": row(2)})
    writer.write("grad", 1, 1.0, site, {"norm": row(3)})
    assert len(list((tmp_path / "rank-0").iterdir())) == 1
    np.testing.assert_array_equal(load(tmp_path).table("grad.absmax").first(), [2, np.nan])


def test_a_step_that_was_written_twice_is_one_row_the_last(tmp_path):
    writer = RankWriter(tmp_path, 0)
    for step, value in [(0, 1), (1, 2), (1, 3), (2, 4)]:
        writer.write("run", step, 0.0, [Site("run", "run")], {"loss": row(value)})
    table = load(tmp_path).table("run.loss")
    np.testing.assert_array_equal(table.steps, [0, 1, 2])
    np.testing.assert_array_equal(table.first(), [1, 3, 4])


def test_a_second_writer_leaves_the_rows_of_the_first(tmp_path, record):
    record(tmp_path, rows=3)
    writer = RankWriter(tmp_path, 0)
    writer.write("output", 99, 0.0, [Site("output", "head")], {"rms": row(1)})
    np.testing.assert_array_equal(load(tmp_path).kinds["output"].steps, [0, 10, 20, 99])


def test_a_kind_is_read_when_it_is_first_asked_for(tmp_path, record, monkeypatch):
    record(tmp_path, kind="grad")
    record(tmp_path, kind="output")
    read = []
    original = segment.SegmentReader.read
    monkeypatch.setattr(
        segment.SegmentReader, "read", lambda self, size: read.append(self._path.name) or original(self, size)
    )
    run = load(tmp_path)
    assert "grad" in run.kinds
    assert "weight" not in run.kinds
    assert list(run.kinds) == ["output", "grad"]
    assert len(run.kinds) == 2
    assert read == []
    assert "grad.rms" in run
    assert len(run.table("grad.rms").steps) == 6
    assert read == ["grad.arrows"]


def test_the_lowest_rank_is_read_unless_another_is_named(tmp_path, record):
    record(tmp_path, rows=2, rank=3)
    record(tmp_path, rows=4, rank=1)
    assert load(tmp_path).steps == 31
    assert load(tmp_path).info.processes == 2
    assert load(tmp_path, rank=3).steps == 11
    with pytest.raises(StabdiagError, match=r"rank 0 of .* was not recorded") as error:
        load(tmp_path, rank=0)
    assert error.value.hint == "recorded: 1, 3"


def test_a_site_is_what_its_own_rank_says_of_it_else_another_one_else_its_name(tmp_path):
    for rank, names in [(0, "ab"), (1, "a")]:
        writer = RankWriter(tmp_path, rank)
        sites = [Site("grad", name, dtype=f"rank {rank}") for name in names]
        writer.write("grad", 0, 0.0, sites, {"norm": np.zeros(len(names), np.float32)})
    (own, other), (alone,) = load(tmp_path, 0).sites("grad"), load(tmp_path, 1).sites("grad")
    assert (own.dtype, other.dtype, alone.dtype) == ("rank 0", "rank 0", "rank 1")
    lines = (tmp_path / "sites.jsonl").read_text().splitlines()
    (tmp_path / "sites.jsonl").write_text(lines[0] + "\n")
    assert load(tmp_path, 1).sites("grad") == (Site("grad", "a", dtype="rank 0"),)
    assert load(tmp_path, 0).sites("grad")[1] == Site("grad", "b")


def test_the_processes_complete_what_run_json_does_not_say(tmp_path):
    write_info(tmp_path, RunInfo(command=("train.py",), device="cuda"))
    said = {"versions": {"torch": "2.4"}, "device": "cpu", "world_size": 8}
    EventLog(tmp_path).append(Event("process", 1.0, data=said))
    info = load(tmp_path).info
    assert info.versions == {"torch": "2.4"}
    assert info.device == "cuda"
    assert info.world_size == 8


def test_a_run_of_no_steps_loads(tmp_path):
    write_info(tmp_path, RunInfo(command=("train.py",), exit_status=1))
    run = load(tmp_path)
    assert (run.steps, run.series, run.notes, run.info.exit_status) == (0, (), (), 1)
    assert run.info.processes == 0


def test_a_folder_that_is_no_run_is_a_clear_error(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DamagedRun, match="is no run directory"):
            load(path)
