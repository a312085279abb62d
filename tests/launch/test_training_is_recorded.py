"""The whole way on real training scripts: in by the environment, out by the closing summary."""

from __future__ import annotations

import signal
import sys

import pytest

from stabdiag.store.findings import read_findings
from stabdiag.store.reader import load

TRAIN = """
import sys, torch
torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=float(sys.argv[1]))
def step():
    x = torch.randn(16, 8)
    loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
"""


@pytest.fixture
def train(workshop):
    workshop.write("train.py", TRAIN + "for _ in range(60):\n    print(step().hex())\n")
    workshop.write("crash.py", TRAIN + "for _ in range(60):\n    step()\nmodel(torch.ones(3))\n")
    workshop.write("forever.py", TRAIN + "while True:\n    step()\n")
    return workshop


def test_a_plain_script_is_recorded_and_computes_the_same(train):
    alone = train.plain(sys.executable, "train.py", "0.01")
    recorded = train.run("train.py", "0.01")
    assert recorded.stdout == alone.stdout
    assert load(train.run_directory()).steps == 60
    assert recorded.stderr.count("stabdiag: ") <= 10
    assert "60 steps" in recorded.stderr


def script_frames(text):
    return [line for line in text.splitlines() if "crash.py" in line]


def test_a_crash_keeps_its_traceback_and_the_last_step(train):
    alone = train.plain(sys.executable, "crash.py", "0.01")
    recorded = train.run("crash.py", "0.01")
    own = "".join(line for line in recorded.stderr.splitlines(True) if not line.startswith("stabdiag: "))
    assert recorded.returncode == 1
    # torch calls a module with hooks through one more line of its own: only torch's frames may differ.
    assert "stabdiag" not in own
    assert script_frames(own) == script_frames(alone.stderr)
    assert own.splitlines()[-1] == alone.stderr.splitlines()[-1]
    assert "stabdiag: the target ended after step 59 with RuntimeError" in recorded.stderr
    assert load(train.run_directory()).steps == 60
    assert read_findings(train.run_directory()).verdict == "failed"


def test_stop_on_critical_interrupts_a_run_that_is_lost(train):
    done = train.run("--stop-on", "critical", "forever.py", "nan")
    assert done.returncode == -signal.SIGINT
    assert "critical: nonfinite-origin since step 0" in done.stderr
    assert "--stop-on critical: nonfinite-origin: stopping the target (SIGINT)" in done.stderr
    assert "KeyboardInterrupt" in done.stderr
    run = load(train.run_directory())
    assert run.info.signal == "SIGINT"
    assert [e.data["signature"] for e in run.events_of("finding")].count("nonfinite-origin") == 1
