"""A row that was written stays: after SIGKILL at any instant, and on a disk that is full."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stabdiag.core.site import Site
from stabdiag.store import writer as writing
from stabdiag.store.reader import load
from stabdiag.store.writer import RankWriter

SITES = [Site("grad", f"layers.{i}") for i in range(50)]
# Writes while files may not grow past a limit, then one row more, and prints what was written.
LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from stabdiag.core.site import Site
from stabdiag.store.writer import RankWriter

sites = [Site("grad", f"layers.{i}") for i in range(50)]
writer = RankWriter(Path(sys.argv[1]), 0)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
written = []
for step in range(60):
    try:
        writer.write("grad", step, 0.0, sites, {"norm": np.full(50, step, np.float32)})
        written.append(step)
    except OSError:
        pass
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.write("grad", 60, 0.0, sites, {"norm": np.full(50, 60, np.float32)})
print(*written, 60)
"""


def row(step: int) -> dict[str, np.ndarray]:
    return {"norm": np.full(len(SITES), step, np.float32)}


def assert_holds(run_dir: Path, steps: list[int], torn: bool = False) -> None:
    """The directory holds these steps and their numbers, for stabdiag and for pyarrow alone."""
    run = load(run_dir)
    assert run.notes == ()
    table = run.table("grad.norm")
    np.testing.assert_array_equal(table.steps, steps)
    np.testing.assert_array_equal(table.values, np.repeat(np.array(steps, np.float32), 50).reshape(-1, 50))
    if torn:  # a kill in the midst of a write may leave a tail that pyarrow raises an error for
        return
    streams = [pa.ipc.open_stream(pa.OSFile(str(path))) for path in run_dir.glob("rank-0/*.arrows")]
    assert sorted(s for stream in streams for s in stream.read_all().column("step").to_pylist()) == steps


def _write_endlessly(run_dir: Path, told: int) -> None:
    writer = RankWriter(run_dir, 0)
    for step in count():
        writer.write("grad", step, 0.0, SITES, row(step))
        os.write(told, b"%d\n" % step)


@pytest.mark.parametrize("instant", np.random.default_rng(0).uniform(0, 0.05, 20).round(4))
def test_no_row_is_lost_when_the_writer_is_killed_at_any_instant(tmp_path, instant):
    reader, told = os.pipe()
    child = multiprocessing.get_context("fork").Process(target=_write_endlessly, args=(tmp_path, told))
    child.start()
    os.close(told)
    with os.fdopen(reader, "rb") as lines:
        steps = [int(lines.readline())]
        killer = threading.Timer(instant, child.kill)
        killer.start()
        steps += [int(line) for line in lines if line.endswith(b"\n")]
    child.join()
    assert child.exitcode == -signal.SIGKILL
    found = load(tmp_path).kinds["grad"].steps
    # The last row may have been written and not told.
    assert len(steps) <= len(found) <= len(steps) + 1
    assert_holds(tmp_path, list(range(len(found))), torn=True)


@pytest.mark.parametrize("limit", [10_000, 12_345, 20_000])
def test_a_file_that_may_not_grow_keeps_its_rows_and_takes_later_ones(tmp_path, limit):
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path, str(limit)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    written = [int(step) for step in result.stdout.split()]
    assert written[-1] == 60
    assert 5 < len(written) < 61
    assert_holds(tmp_path, written)


def tear(monkeypatch, after: int) -> None:
    """Makes the disk full: the next write takes `after` bytes, and those behind it fail."""
    real = os.write
    taken = []

    def write(fd, data):
        if taken:
            raise OSError(28, "No space left on device")
        taken.append(real(fd, memoryview(data)[:after]))
        return taken[0]

    monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("after", [1, 7, 100, 300, 450])
def test_a_row_that_was_written_in_part_is_taken_back(tmp_path, monkeypatch, after):
    writer = RankWriter(tmp_path, 0)
    for step in range(3):
        writer.write("grad", step, 0.0, SITES, row(step))
    with monkeypatch.context() as full:
        tear(full, after)
        with pytest.raises(OSError, match="No space left"):
            writer.write("grad", 3, 0.0, SITES, row(3))
    assert_holds(tmp_path, [0, 1, 2])
    writer.write("grad", 4, 0.0, SITES, row(4))
    assert_holds(tmp_path, [0, 1, 2, 4])
    assert len(list(tmp_path.glob("rank-0/*"))) == 1


def test_a_first_row_that_was_written_in_part_is_begun_again(tmp_path, monkeypatch):
    writer = RankWriter(tmp_path, 0)
    monkeypatch.setattr(writing, "append_sites", lambda *args: None)
    with monkeypatch.context() as full:
        tear(full, 100)
        with pytest.raises(OSError, match="No space left"):
            writer.write("grad", 0, 0.0, SITES, row(0))
    writer.write("grad", 1, 0.0, SITES, row(1))
    assert_holds(tmp_path, [1])


def test_where_the_torn_row_cannot_be_taken_back_later_rows_go_to_a_new_segment(tmp_path, monkeypatch):
    writer = RankWriter(tmp_path, 0)
    writer.write("grad", 0, 0.0, SITES, row(0))

    def refuse(fd, size):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as full:
        tear(full, 100)
        full.setattr(os, "ftruncate", refuse)
        with pytest.raises(OSError, match="No space left"):
            writer.write("grad", 1, 0.0, SITES, row(1))
    writer.write("grad", 2, 0.0, SITES, row(2))
    assert load(tmp_path).notes == ()
    np.testing.assert_array_equal(load(tmp_path).table("grad.norm").steps, [0, 2])
    second = pa.ipc.open_stream(pa.OSFile(str(tmp_path / "rank-0" / "grad-1.arrows"))).read_all()
    assert second.column("step").to_pylist() == [2]


def test_sites_that_could_not_be_written_are_written_with_the_next_row(tmp_path, monkeypatch):
    writer = RankWriter(tmp_path, 0)
    with monkeypatch.context() as full:
        tear(full, 150)
        with pytest.raises(OSError, match="No space left"):
            writer.write("grad", 0, 0.0, SITES, row(0))
    writer.write("grad", 1, 0.0, SITES, row(1))
    run = load(tmp_path)
    assert run.sites("grad") == tuple(SITES)
    np.testing.assert_array_equal(run.table("grad.norm").steps, [1])
    assert len((tmp_path / "sites.jsonl").read_text().splitlines()) >= len(SITES)


def test_a_row_goes_out_in_one_write(tmp_path, monkeypatch):
    writer = RankWriter(tmp_path, 0)
    writer.write("grad", 0, 0.0, SITES, row(0))
    calls, real = [], os.write
    monkeypatch.setattr(os, "write", lambda fd, data: calls.append(len(data)) or real(fd, data))
    writer.write("grad", 1, 0.0, SITES, row(1))
    assert len(calls) == 1
    assert_holds(tmp_path, [0, 1])


def test_a_full_disk_keeps_every_row_that_was_reported_as_written(tmp_path):
    libc = ctypes.CDLL(None, use_errno=True)
    disk = tmp_path / "disk"
    disk.mkdir()
    if libc.mount(b"tmpfs", str(disk).encode(), b"tmpfs", 0, b"size=128k") != 0:
        pytest.skip(f"no small disk can be mounted: {os.strerror(ctypes.get_errno())}")
    try:
        (disk / "ballast").write_bytes(bytes(30_000))
        writer, written = RankWriter(disk, 0), []
        for step in range(300):
            with contextlib.suppress(OSError):
                writer.write("grad", step, 0.0, SITES, row(step))
                written.append(step)
        assert 0 < len(written) < 300
        assert_holds(disk, written)
        (disk / "ballast").unlink()
        writer.write("grad", 300, 0.0, SITES, row(300))
        assert_holds(disk, [*written, 300])
        writer.close()
    finally:
        libc.umount2(str(disk).encode(), 2)
