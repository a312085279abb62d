"""What it costs to write and to read rows of 2,400 values, beside plain files of as many bytes.

    python benchmarks/store.py [FOLDER]

Both sides take turns, and the medians are shown. FOLDER is where the files go.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stabdiag.core.site import Site
from stabdiag.store.reader import load
from stabdiag.store.writer import RankWriter

SITES = [Site("output", f"blocks.{i}", "Linear", (128, 128), "float32", i) for i in range(200)]
STATISTICS = [f"statistic_{i}" for i in range(12)]
VALUES = len(SITES) * len(STATISTICS)
ROWS = 4_167  # 10 million values
ROUNDS = 9


def write_rows(run_dir: Path) -> None:
    noise = np.random.default_rng(0)
    row = {name: noise.normal(size=len(SITES)).astype(np.float32) for name in STATISTICS}
    writer = RankWriter(run_dir, 0)
    for step in range(ROWS):
        writer.write("output", step, 0.0, SITES, row)
    writer.close()


def write_raw(path: Path, row: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for _ in range(ROWS):
        os.write(fd, row)
    os.close(fd)


def read_views(run_dir: Path) -> list[np.ndarray]:
    return list(load(run_dir).kinds["output"].values.values())


def read_copies(run_dir: Path) -> np.ndarray:
    copies = np.empty((len(STATISTICS), ROWS, len(SITES)), np.float32)
    for copy, view in zip(copies, read_views(run_dir), strict=True):
        copy[:] = view
    return copies


def main(folder: Path) -> None:
    seconds: dict[str, list[float]] = {}

    def timed(name: str, clock: Callable[[], float], work: Callable[..., object], *arguments: object) -> None:
        start = clock()
        work(*arguments)
        seconds.setdefault(name, []).append(clock() - start)

    run_dir, raw = folder / "run", folder / "raw"
    arrows = run_dir / "rank-0" / "output.arrows"
    run_dir.mkdir()
    write_rows(run_dir)
    size = arrows.stat().st_size
    for _ in range(ROUNDS):
        arrows.unlink()
        timed("write", time.process_time, write_rows, run_dir)
        raw.unlink(missing_ok=True)
        timed("raw write", time.process_time, write_raw, raw, bytes(size // ROWS))
        timed("views", time.perf_counter, read_views, run_dir)
        timed("copies", time.perf_counter, read_copies, run_dir)
        timed("raw read", time.perf_counter, np.fromfile, raw, np.float32)
    median = {name: statistics.median(each) for name, each in seconds.items()}
    lines = [
        ("CPU µs to write a row", median["write"] / ROWS * 1e6, median["raw write"] / ROWS * 1e6, ".1f"),
        ("bytes a value", size / ROWS / VALUES, float("nan"), ".2f"),
        ("s to read into numpy", median["copies"], median["raw read"], ".3f"),
        ("s to read as views", median["views"], float("nan"), ".3f"),
    ]
    print(f"{f'{ROWS:,} rows of {VALUES:,} values':<34}{'stabdiag':>10}{'plain file':>12}")
    for name, ours, plain, form in lines:
        print(f"{name:<34}{ours:>10{form}}{'' if plain != plain else format(plain, form):>12}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        main(Path(folder))
