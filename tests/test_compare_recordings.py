"""Recorded trainings of one script, held against each other: rate, precision, seed, processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import stabdiag
from stabdiag.analysis.comparison.engine import compare
from stabdiag.core.comparison import Comparison

pytestmark = pytest.mark.slow

SCRIPT = """
import os, sys
import torch
from torch import nn

torch.set_num_threads(1)
given = dict(word.split("=") for word in sys.argv[1:])
world = int(os.environ.get("WORLD_SIZE", 1))
if world > 1:
    torch.distributed.init_process_group("gloo")
torch.manual_seed(int(given.get("seed", 0)))
inner = nn.Linear(12, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 32), nn.GELU()
model = nn.Sequential(*inner, nn.Linear(32, 4))
net = nn.parallel.DistributedDataParallel(model) if world > 1 else model
optimizer = torch.optim.AdamW(net.parameters(), lr=float(given.get("lr", 3e-3)))
teacher = torch.randn(12, 4, generator=torch.Generator().manual_seed(9))
data = torch.Generator().manual_seed(1)
for step in range(120):
    x = torch.randn(64, 12, generator=data)
    y = torch.tanh(x @ teacher)
    if step == int(given.get("slip", -1)):
        with torch.no_grad():
            model[3].weight.mul_(4)
    if world > 1:
        x, y = (part.chunk(world)[int(os.environ["RANK"])] for part in (x, y))
    with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in given):
        out = net(x)
    loss = nn.functional.mse_loss(out.float(), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
TRAININGS = {
    "first": [],
    "again": [],
    "slipped": ["slip=60"],
    "faster": ["lr=1e-2"],
    "coarser": ["bf16=1"],
    "other": ["seed=5"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run a training, and `two`, the first in two processes."""
    made: Path = tmp_path_factory.mktemp("recordings")
    script = made / "train.py"
    script.write_text(SCRIPT)
    plain = {name: [str(script), *words] for name, words in TRAININGS.items()}
    launched = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    for name, target in {**plain, "two": launched}.items():
        own = ["--log-dir", str(made), "--name", name, "--every", "2", "--no-report", "--quiet"]
        done = subprocess.run(
            [sys.executable, "-m", "stabdiag", "run", *own, *target],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return made


def told(folder: Path, a: str, b: str) -> Comparison:
    return compare(stabdiag.load(folder / a), stabdiag.load(folder / b))


def test_one_training_twice_is_the_same_to_the_bit(folder):
    same = told(folder, "first", "again")
    assert (same.verdict, same.identical_until, same.settings) == ("identical", 119, ())
    assert same.values > 10_000


def test_a_slip_is_found_in_its_layer_at_its_step(folder):
    parted = told(folder, "first", "slipped")
    assert (parted.verdict, parted.identical_until) == ("part", 59)
    assert (parted.first.site, parted.first.step) == ("3", 60)
    assert parted.first.series.startswith("output.")
    assert "run.loss" in [parting.series for parting in parted.followed]


def test_another_learning_rate_is_the_first_to_part_and_the_updates_follow(folder):
    parted = told(folder, "first", "faster")
    assert (parted.first.series, parted.first.step) == ("run.lr", 0)
    assert (parted.followed[0].series, parted.followed[0].step) == ("update.ratio", 0)
    assert [(d.what, d.a, d.b) for d in parted.settings[1:]] == [
        ("optimizer: learning rate", "0.003", "0.01")
    ]


def test_bfloat16_beside_float32_differs_and_does_not_part(folder):
    coarser = told(folder, "first", "coarser")
    assert (coarser.verdict, coarser.identical_until) == ("same", None)
    assert coarser.first_bit.step == 0


def test_another_seed_is_another_draw_whose_loss_settles_alike(folder):
    other = told(folder, "first", "other")
    assert (other.verdict, other.first.step) == ("unpaired", 0)
    loss = next(level for level in other.levels if level.series == "run.loss")
    assert not loss.beyond


def test_two_processes_train_as_one(folder):
    two = told(folder, "first", "two")
    assert two.verdict == "same"
    assert abs(two.first_bit.b / two.first_bit.a - 1) < 1e-4
    assert ("processes", "1", "2") in [(d.what, d.a, d.b) for d in two.settings]
