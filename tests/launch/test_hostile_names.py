"""What a run calls its layers, and what a finding says, cannot drive the terminal that it is told on."""

from __future__ import annotations

import io
import re
import sys

import pytest

from stabdiag.core.config import Configuration
from stabdiag.core.diagnosis import Diagnosis, Incident
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.synthetic import run_of
from stabdiag.launch.listener import Listeners
from stabdiag.launch.live import LiveAnalysis
from stabdiag.launch.voice import Voice
from stabdiag.render.summary import summary_lines
from stabdiag.render.terminal import LONGEST, console_for
from stabdiag.render.text import render_text

STABDIAG = (sys.executable, "-m", "stabdiag")
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
BAD = "\x1b[2J\x1b]0;owned\x07\x00\u202egnp.exe\u2066\r\nstabdiag: all is well"
HUGE = BAD + "x" * 10_000_000

TRAIN = """
import torch
torch.set_num_threads(1)
model = torch.nn.Sequential()
model.add_module("\\x1b[2Jevil\\u202e\\r", torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=float("nan"))
for _ in range(12):
    optimizer.zero_grad()
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
raise ValueError("\\x1b[2J\\u202e" + "x" * 3_000_000)
"""


@pytest.fixture(params=[BAD, HUGE], ids=["controls", "ten megabytes"])
def diagnosis(request):
    bad = request.param
    finding = Finding(Severity.critical, 0.9, (bad, bad), 1, 2, 3, bad, signature="loss-spike")
    incident = Incident(Severity.critical, 0, (0,), 1, None, ())
    return Diagnosis("unstable", (incident,), (finding,), (), {"steps": 3, "path": "a/run"})


def assert_harmless(text, most):
    assert not CONTROLS.search(text)
    assert max(map(len, text.splitlines())) <= most
    assert not re.search("^stabdiag: all is well", text, re.MULTILINE)


def test_an_alert_is_one_harmless_line(diagnosis, tmp_path, capsys):
    live = LiveAnalysis(tmp_path, Configuration(), Voice(), Listeners((), Voice()))
    live._tell(run_of({"run.loss": [1.0, 2.0, 3.0]}), diagnosis)
    told = capsys.readouterr().err
    assert "loss-spike since step 1" in told
    assert len(told.splitlines()) == 1
    assert_harmless(told, LONGEST + 100)


def test_the_closing_summary_is_harmless(diagnosis):
    lines = summary_lines(run_of({"run.loss": [1.0, 2.0, 3.0]}), diagnosis, width=100)
    assert any("loss-spike" in line for line in lines)
    assert_harmless("\n".join(lines), 200)


def test_the_report_in_text_is_harmless(diagnosis):
    written = io.StringIO()
    render_text(run_of({"run.loss": [1.0, 2.0, 3.0]}), diagnosis, console_for(written), verbose=True)
    assert "gnp.exe" in written.getvalue()
    assert len(written.getvalue()) < 50_000
    assert_harmless(written.getvalue(), 200)


def test_a_run_with_such_layers_says_nothing_that_drives_the_terminal(workshop):
    workshop.write("train.py", TRAIN)
    done = workshop.run("train.py")
    ours = [line for line in done.stderr.split("\n") if line.startswith("stabdiag: ")]
    assert any("evil" in line for line in ours)
    for line in ours:
        assert_harmless(line, LONGEST + 100)
    for words in (("check",), ("report", "--format", "text"), ("live",)):
        told = workshop.plain(*STABDIAG, *words)
        assert "evil" in told.stdout
        assert_harmless(told.stdout.replace("\n", "."), LONGEST * 40)


def test_an_error_that_quotes_a_hostile_name_is_harmless(workshop):
    done = workshop.plain(*STABDIAG, "report", "\x1b[2J\u202e")
    assert done.returncode == 2
    assert_harmless(done.stderr, LONGEST + 100)
