"""What recording cost is told wherever the run is told."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run, RunInfo
from stabdiag.core.synthetic import run_of
from stabdiag.render.cost import cost
from stabdiag.render.markdown import render_markdown
from stabdiag.render.page import render_page
from stabdiag.render.summary import summary_lines
from stabdiag.render.terminal import console_for
from stabdiag.render.text import render_text

Verdict = Callable[[Run], Diagnosis]
SPENT = "2.0 % of the time (0.1 s), budget 2 %"
SEEN = "1 step none, 44 fast, 4 standard, 1 rare"


def _run(configuration: Mapping[str, Any]) -> Run:
    tier = np.array([0] + [1] * 44 + [2] * 4 + [4])
    series = {
        "run.loss": np.linspace(3, 1, 50),
        "run.step_time": np.full(50, 0.1),
        "run.overhead": np.full(50, 0.002),
        "run.tier": tier,
    }
    return run_of(series, info=RunInfo(configuration=configuration))


@pytest.fixture
def told(stable: Verdict) -> tuple[Run, Diagnosis]:
    run = _run({"budget": 0.02, "every": None})
    diagnosis = stable(run)
    return run, replace(diagnosis, run={**diagnosis.run, "overhead_percent": 2.0})


def test_the_report_says_what_was_spent_of_which_budget_and_what_was_seen(
    told: tuple[Run, Diagnosis],
) -> None:
    stream = io.StringIO()
    render_text(*told, console_for(stream))
    page = render_page(*told, "cdn")
    for text in (" ".join(stream.getvalue().split()), page):
        assert SPENT in text
        assert SEEN in text
    assert "Recorder: 2.0 % of the time" in render_markdown(*told)


def test_the_summary_says_how_many_steps_were_seen_at_which_tier(told: tuple[Run, Diagnosis]) -> None:
    assert f"recorded: {SEEN}; budget 2 %" in summary_lines(*told)


@pytest.mark.parametrize(
    ("configuration", "allowed"),
    [
        ({"budget": 0.005, "every": None}, "budget 0.5 %"),
        ({"budget": None, "every": None}, "no budget: every step whole"),
        ({"budget": 0.02, "every": 10}, "1 step in 10 whole"),
        ({"budget": 0.02, "every": 1}, "every step whole"),
        ({}, ""),
    ],
)
def test_the_budget_is_told_as_it_was_given(
    configuration: Mapping[str, Any], allowed: str, stable: Verdict
) -> None:
    run = _run(configuration)
    assert cost(run, stable(run)).allowed == allowed


def test_a_run_that_does_not_say_what_it_cost_has_no_line_for_it(stable: Verdict) -> None:
    run = run_of({"run.loss": [1.0, 0.5], "run.tier": [float("nan")] * 2})
    assert cost(run, stable(run)).words == ""
    assert not [line for line in summary_lines(run, stable(run)) if line.startswith("recorded")]
    assert "ecorder" not in render_markdown(run, stable(run))


@pytest.mark.parametrize(("percent", "free"), [(45.5, ", and 3 s in the first thousand steps"), (1.9, "")])
def test_what_is_free_at_first_is_told_where_it_shows(percent: float, free: str, stable: Verdict) -> None:
    run = _run({"budget": 0.02, "every": None})
    diagnosis = stable(run)
    spent = cost(run, replace(diagnosis, run={**diagnosis.run, "overhead_percent": percent}))
    assert spent.allowed == f"budget 2 %{free}"
