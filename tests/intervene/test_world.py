"""Processes that train together decide alike, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import stabdiag

SCRIPT = Path(__file__).parent / "worlds" / "guarded.py"
WAYS = ("copies", "sharded", "apart")


@pytest.mark.slow
def test_ranks_decide_by_the_gradient_that_they_share_or_not_at_all(tmp_path):
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(SCRIPT))
    done = subprocess.run(
        [sys.executable, *launch, str(tmp_path), *WAYS],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = {way: [line for line in done.stdout.splitlines() if line.startswith(way)] for way in WAYS}
    first, second = said["copies"]
    assert first == second  # also in the weights
    assert first.startswith("copies: [40, 45] finite")
    assert all(line.startswith(f"{way}: []") for way in WAYS[1:] for line in said[way])
    because = {
        way: {e.data["because"] for e in stabdiag.load(tmp_path / way).events_of("coverage")} for way in WAYS
    }
    assert any("holds a part of its gradients" in reason for reason in because["sharded"])
    assert any("nothing says that its gradients are the same" in reason for reason in because["apart"])
