"""The live view: what matters fits, whatever the terminal and whatever the names."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.event import Event
from stabdiag.core.run import Run, RunInfo
from stabdiag.render.dashboard import Panel, Section, load_dashboard
from stabdiag.render.live import frame, line_of
from stabdiag.render.look import Look, State
from stabdiag.render.progress import Length, planned_length, progress
from stabdiag.render.worst import worst

HEALTH = load_dashboard()
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


def text_of(lines):
    return "\n".join(line.plain for line in lines)


@pytest.fixture
def look(failed_run, failed_diagnosis):
    """Some way into a run that goes wrong."""
    shown = progress(failed_run, float(failed_run.kinds["run"].times[-1]) + 1)
    return Look("a-run", State.training, failed_run, failed_diagnosis, shown)


def test_eighty_by_twenty_four_hold_what_matters(look):
    lines = frame(look, HEALTH, 80, 24)
    assert len(lines) <= 24
    shown = text_of(lines)
    for wanted in (
        "a-run",
        "training",
        "loss ",
        "grad_norm ",
        "Findings",
        "critical",
        "Worst layers now",
        "ETA",
    ):
        assert wanted in shown
    assert re.search(r"loss +\S+ +[▁▂▃▄▅▆▇█×]{20,}", shown)


@pytest.mark.parametrize("width", [1, 2, 7, 20, 40, 80, 81, 200])
@pytest.mark.parametrize("height", [1, 2, 3, 5, 10, 24, 60])
def test_it_fits_any_terminal(look, width, height):
    lines = frame(look, HEALTH, width, height)
    assert 1 <= len(lines) <= height
    assert max(line.cell_len for line in lines) <= width


def test_a_few_lines_still_tell_the_state_the_loss_and_the_worst_finding(look):
    shown = text_of(frame(look, HEALTH, 60, 6))
    assert "training" in shown
    assert "loss" in shown
    assert "critical" in shown


def test_an_ascii_terminal_gets_ascii(look):
    for line in frame(look, HEALTH, 80, 24, "ascii"):
        line.plain.encode("ascii")


def test_hostile_names_and_messages_cannot_reach_the_terminal(look):
    bad = "\x1b[2J\x1b]0;title\x07\x00\u202egnp.exe\u2066\n\r" + "x" * 10_000_000
    findings = tuple(replace(f, message=bad, sites=(bad,)) for f in look.diagnosis.findings)
    hostile = replace(look, name=bad, diagnosis=replace(look.diagnosis, findings=findings))
    data = hostile.run.kinds["output"]
    sites = tuple(replace(site, name=f"{bad[:50]}{i}") for i, site in enumerate(data.sites))
    kinds = {**hostile.run.kinds, "output": replace(data, sites=sites)}
    hostile = replace(hostile, run=Run(hostile.run.info, kinds))
    lines = frame(hostile, HEALTH, 100, 60)
    assert not CONTROLS.search(text_of(lines).replace("\n", ""))
    assert max(line.cell_len for line in lines) <= 100
    assert not CONTROLS.search(line_of(hostile, "utf-8", findings[0]))


def test_a_dashboard_of_ones_own_decides_what_is_drawn(look):
    mine = replace(
        HEALTH, sections=(Section("Mine", "", (Panel("", series=("output.absmax",), view="lines"),)),)
    )
    shown = text_of(frame(look, mine, 100, 40))
    assert "output.absmax" in shown
    assert "\nlr " not in shown
    assert "Worst layers now" not in shown
    assert "\nloss " in shown  # always


def test_a_run_that_has_not_begun_says_so():
    nothing = Run(RunInfo(), {})
    look = Look("stabdiag-runs", State.waiting, nothing, None, progress(nothing, 0.0))
    shown = text_of(frame(look, HEALTH, 80, 24))
    assert "waiting for its first step" in shown
    assert "Ctrl-C leaves" in shown
    assert line_of(look, "utf-8").startswith("waiting for its first step")


def test_one_that_stands_still_says_for_how_long(look):
    still = replace(look, progress=replace(look.progress, since=200.0))
    assert "no step for 3 min 20 s" in text_of(frame(still, HEALTH, 100, 24))
    slow = replace(still, progress=replace(still.progress, pace=0.01))
    assert "no step for" not in text_of(frame(slow, HEALTH, 100, 24))


@pytest.mark.parametrize(
    ("command", "steps"),
    [
        ("train.py --steps 500", 500),
        ("train.py --max_steps=500", 500),
        ("train.py trainer.max_steps=500", 500),
        ("train.py --max-iters 500 --lr 3", 500),
        ("train.py --max_steps -1", None),
        ("train.py --steps 500 --max-steps 600", None),
        ("train.py --warmup-steps 500", None),
        ("train.py --save-steps 500 --eval_steps=100", None),
        ("train.py --epochs 3", None),
        ("", None),
    ],
)
def test_the_length_is_what_the_command_says_and_nothing_else(command, steps):
    found = planned_length(Run(RunInfo(command=tuple(command.split())), {}))
    assert (found.steps if found else None) == steps


def test_an_intervention_that_ends_the_run_tells_its_length():
    info = RunInfo(command=("train.py", "--steps", "500"), configuration={"apply": ["early-stopping=200"]})
    assert planned_length(Run(info, {})) == Length(200, "early-stopping")


def test_a_host_that_says_how_many_steps_it_takes_is_believed():
    planned = Event("planned", 0.0, data={"steps": 300, "source": "Trainer"})
    run = Run(RunInfo(command=("stabdiag.watch",)), {}, [planned])
    assert planned_length(run) == Length(300, "Trainer")
    assert planned_length(replace(run, events=[replace(planned, data={"steps": "<b>"})])) is None


def test_the_time_that_is_left_is_told_only_where_the_length_is_known(failed_run):
    now = float(failed_run.kinds["run"].times[-1])
    unknown = progress(failed_run, now)
    assert unknown.remaining is None
    assert "unknown" in unknown.ending_words
    known = progress(failed_run, now, Length(failed_run.steps + 100, "--steps"))
    assert known.remaining == pytest.approx(100 / known.pace)
    passed = progress(failed_run, now, Length(failed_run.steps - 1, "--steps"))
    assert passed.remaining is None


def test_the_layers_that_left_their_usual_are_worst(failed_run):
    found = worst(failed_run.window(0, 1600), ["output.rms", "output.absmax"], 5)
    assert found[0].distance >= found[-1].distance
    assert len({one.module for one in found}) == len(found)
    healthy = worst(failed_run.window(0, 1000), ["output.rms", "output.absmax"], 5)
    assert healthy[0].distance < found[0].distance


def test_a_layer_that_is_not_finite_is_worst_of_all(failed_run):
    (first, *_) = worst(failed_run, ["output.rms"], 3)
    assert first.distance == np.inf
    assert first.words.startswith("NaN, usually ")


def test_a_run_without_findings_says_so(look):
    healthy = replace(look, diagnosis=Diagnosis("stable", (), (), (), {"steps": look.run.steps}))
    assert "Findings: none" in text_of(frame(healthy, HEALTH, 80, 24))


def test_a_diagnosis_that_lags_behind_says_how_far_it_looked(look):
    behind = replace(look, diagnosis=replace(look.diagnosis, run={"steps": 1500}))
    assert "Findings so far, to step 1,499" in text_of(frame(behind, HEALTH, 80, 24))
