"""The view of a notebook that changes in place."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.config import Configuration
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of
from stabdiag.render import notebook_live
from stabdiag.render.notebook_live import PERIOD, LiveView, live_fragment


class Handle:
    """A display that notes when it was changed, and to what."""

    def __init__(self) -> None:
        self.changes: list[tuple[float, str]] = []

    def update(self, shown: Any) -> None:
        self.changes.append((time.monotonic(), shown.data))


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Handle:
    handle = Handle()
    monkeypatch.setattr(notebook_live, "in_a_frontend", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: handle)
    return handle


@pytest.fixture
def short() -> Run:
    return run_of({"run.loss": np.linspace(2, 1, 40)[:, None]})


def test_it_changes_at_most_twice_a_second_and_once_more_at_the_end(handle: Handle, short: Run) -> None:
    view = LiveView(lambda: short, Configuration())
    view.start()
    time.sleep(2.5 * PERIOD)
    view.finish()
    times = [when for when, _ in handle.changes[:-1]]  # the last comes when the end does
    assert 1 <= len(times) <= 2
    assert all(later - sooner >= PERIOD * 0.9 for sooner, later in pairwise(times))
    assert "40 steps" in handle.changes[-1][1]


def test_where_nothing_trained_nothing_stays(handle: Handle) -> None:
    view = LiveView(lambda: run_of({}), Configuration())
    view.start()
    view.finish()
    assert [shown for _, shown in handle.changes] == [""]


def test_a_failure_is_told_in_its_place_and_ends_the_view_alone(handle: Handle) -> None:
    def fail() -> Run:
        raise RuntimeError("<b>planted</b>")

    view = LiveView(fail, Configuration())
    view.start()
    view.finish()
    ((_, shown),) = handle.changes
    assert "recording goes on" in shown
    assert "&lt;b&gt;planted" in shown


def test_elsewhere_than_in_a_notebook_nothing_is_drawn(short: Run) -> None:
    view = LiveView(lambda: short, Configuration())
    view.start()
    assert not view.is_alive()
    view.finish()


def test_it_shows_steps_loss_and_what_was_found(failed_run: Run, failed_diagnosis: Diagnosis) -> None:
    html = live_fragment(failed_run, failed_diagnosis)
    assert "2,000 steps" in html
    assert "<code>" in html
    root = failed_diagnosis.findings[failed_diagnosis.incidents[0].root]
    assert root.signature.replace("-", " ") in html.lower()
    assert "<script" not in html


def test_a_healthy_run_shows_its_numbers_alone(short: Run) -> None:
    html = live_fragment(short, diagnose(short))
    assert "loss" in html
    assert "critical" not in html
