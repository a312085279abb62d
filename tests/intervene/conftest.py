from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import stabdiag
from stabdiag.capture.session import Session
from stabdiag.core.cadence import Cadence
from stabdiag.core.event import Event
from stabdiag.core.run import Run
from stabdiag.intervene.controller import Controller
from stabdiag.intervene.request import Acting


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def applying(tmp_path: Path) -> Callable[..., object]:
    """A context in which what is trained is recorded, and acted on as `--apply` and `--guard` would."""

    @contextmanager
    def context(*apply: str, guard: bool = False) -> Iterator[Session]:
        session = Session(tmp_path, Cadence(every=1), actor=Controller(Acting.parse(apply, guard)))
        try:
            yield session
        finally:
            session.end()

    return context


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[[], Run]:
    return lambda: stabdiag.load(tmp_path)


@pytest.fixture
def told(recorded: Callable[[], Run]) -> Callable[..., list[Event]]:
    """The events of interventions, but for those of their end; fails where one of them broke."""

    def events(action: str) -> list[Event]:
        run = recorded()
        assert [e.data for e in run.events_of("recorder-error")] == []
        return [e for e in run.events_of("intervention") if e.data["action"] == action]

    return events
