from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import stabdiag
from stabdiag.core.run import Run

WORLDS = Path(__file__).parent / "worlds"
sys.path.insert(0, str(WORLDS))


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python in a folder of the test's own; a word `with_….py` is one of the worlds."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        found = [str(WORLDS / word) if word.startswith("with_") else word for word in words]
        return subprocess.run(
            [sys.executable, *found], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip

    return run


@pytest.fixture
def lines() -> Iterator[Callable[[str], list[str]]]:
    """What a logger is told, by its name: hosts keep their loggers from those of pytest."""
    kept = []

    def listen(name: str) -> list[str]:
        told: list[str] = []
        logger, handler = logging.getLogger(name), logging.Handler()
        handler.emit = lambda record: told.append(f"{record.levelname} {record.getMessage()}")  # type: ignore[method-assign]
        kept.append((logger, handler, logger.level))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        return told

    yield listen
    for logger, handler, level in kept:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.fixture
def closed(tmp_path: Path) -> Callable[[], Run]:
    """Gives the only run of the test's folder, which has ended and without an error of the recorder."""

    def load() -> Run:
        directories = [path for path in (tmp_path / "stabdiag-runs").iterdir() if path.name != "latest"]
        assert len(directories) == 1
        run = stabdiag.load(directories[0])
        assert list(run.events_of("recorder-error")) == []
        assert run.info.ended is not None
        assert (directories[0] / "findings.json").exists()
        return run

    return load
