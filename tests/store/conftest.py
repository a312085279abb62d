from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from stabdiag.core.run import Floats, RunInfo
from stabdiag.core.site import Site
from stabdiag.store.info import write_info
from stabdiag.store.writer import RankWriter

STATISTICS = ("rms", "absmax", "nonfinite")
Recorded = dict[str, Floats]
Recorder = Callable[..., Recorded]


@pytest.fixture(scope="session")
def record() -> Recorder:
    """Writes rows of random numbers of one kind, and gives them back as [rows, sites] a statistic."""

    def write(
        run_dir: Path,
        rows: int = 6,
        names: Sequence[str] = ("embed", "blocks.0", "head"),
        kind: str = "output",
        rank: int = 0,
        every: int = 10,
    ) -> Recorded:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_info(run_dir, RunInfo(command=("train.py", "--lr", "3e-3"), started=1.0))
        sites = [Site(kind, name, "Linear", (4, 2), "float32", order) for order, name in enumerate(names)]
        noise = np.random.default_rng(0)
        drawn = {s: noise.normal(size=(rows, len(names))).astype(np.float32) for s in STATISTICS}
        writer = RankWriter(run_dir, rank)
        for row in range(rows):
            columns = {statistic: array[row] for statistic, array in drawn.items()}
            writer.write(kind, every * row, 100.0 + row, sites, columns)
        writer.close()
        return drawn

    return write
