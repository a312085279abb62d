from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import stabdiag
from stabdiag.api import Watch
from stabdiag.capture.session import Session
from stabdiag.core.cadence import Cadence
from stabdiag.core.run import Run


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def watch(tmp_path: Path) -> Callable[..., Watch]:
    """Records every step of what is given, until the test closes it."""
    return lambda *args, **more: stabdiag.watch(*args, **{"log_dir": tmp_path, "every": 1, **more})


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A recorder as `stabdiag run` starts one: it has to find out by itself what is trained."""
    started = Session(tmp_path, Cadence(every=1))
    yield started
    started.end()


@pytest.fixture
def found(tmp_path: Path) -> Callable[[], Run]:
    """What the session has recorded."""
    return lambda: stabdiag.load(tmp_path)


@pytest.fixture
def healthy() -> Callable[[Run], None]:
    """Asserts that no probe was switched off."""

    def check(run: Run) -> None:
        assert [event.data for event in run.events_of("recorder-error")] == []

    return check


@pytest.fixture
def at() -> Callable[..., dict[str, Any]]:
    """site -> value of a series at its n-th recorded step."""

    def values(run: Run, series: str, row: int = 0) -> dict[str, float]:
        table = run.table(series)
        return dict(zip(table.names, table.values[row].tolist(), strict=True))

    return values


@pytest.fixture
def train() -> Callable[..., None]:
    """Plain training steps: zero, forward, backward, step; the loss is the mean square unless given."""

    def steps(model, optimizer, batches, loss=lambda output: output.square().mean()) -> None:
        for batch in batches:
            optimizer.zero_grad()
            loss(model(batch)).backward()
            optimizer.step()

    return steps
