"""Targets that train little or nothing: a clear word, the target's own status, never a traceback of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import stabdiag

HEAD = """
import torch
torch.set_num_threads(1)
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
def step():
    optimizer.zero_grad()
    model(torch.ones(1, 2)).square().sum().backward()
    optimizer.step()
"""


def record(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "train.py").write_text(HEAD + script)
    return subprocess.run(
        [sys.executable, "-m", "stabdiag", "run", "--no-report", "train.py"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("script", "status", "steps", "word"),
    [
        ("print('done')", 0, 0, "no process trained"),
        ("raise SystemExit(7)", 7, 0, "no process trained"),
        ("step()", 0, 1, "1 step"),
        ("model(torch.ones(1, 2)).sum().backward()", 0, 0, "no process trained"),
    ],
)
def test_a_run_of_no_or_one_step_is_told_as_such(tmp_path, script, status, steps, word):
    done = record(tmp_path, script)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert word in done.stderr
    assert stabdiag.load(tmp_path / "stabdiag-runs").steps == steps
