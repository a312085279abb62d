from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stabdiag.core.run import RunInfo
from stabdiag.core.site import Site
from stabdiag.store.directory import create_run_directory
from stabdiag.store.info import write_info
from stabdiag.store.writer import RankWriter

Stabdiag = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def stabdiag(tmp_path: Path) -> Stabdiag:
    """Runs the command line in a folder of the test's own."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "stabdiag", *words],
            cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run of one loss curve."""

    def write(name: str, losses: np.ndarray, **info: object) -> Path:
        run_dir = create_run_directory(tmp_path / "stabdiag-runs", name, exact=True)
        ended = {"ended": 2.0, "exit_status": 0, **info}
        write_info(run_dir, RunInfo(command=("train.py",), started=1.0, **ended))  # type: ignore[arg-type]
        writer = RankWriter(run_dir, 0)
        for step, loss in enumerate(losses):
            columns = {
                "loss": np.array([loss], np.float32),
                "nonfinite": np.array([float(not np.isfinite(loss))], np.float32),
            }
            writer.write("run", step, float(step), [Site("run", "run")], columns)
        writer.close()
        return run_dir

    return write


@pytest.fixture
def falling() -> np.ndarray:
    """A healthy loss, [300]: from 4 to about 1, with a little noise."""
    noise = np.random.default_rng(0).normal(0, 0.02, 300)
    return 1 + 3 * np.exp(-np.arange(300) / 80) + noise


@pytest.fixture
def diverging(falling: np.ndarray) -> np.ndarray:
    """The same, lost for good from step 200 on."""
    lost = falling.copy()
    lost[200:] += np.linspace(1, 40, 100)
    return lost
