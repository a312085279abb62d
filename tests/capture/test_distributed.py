"""Processes that train one model together are recorded each, and read as one run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import stabdiag

SCRIPT = Path(__file__).parent / "worlds" / "sharing.py"
sys.path.insert(0, str(SCRIPT.parent))
from sharing import FAULT_STEP, PAUSE, STEPS, Net  # noqa: E402

WAYS = ("copies", "sharded", "parallel", "parted", "lost", "slow", "half")
WORLD = 2
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The folder of one run a way, each of two ranks that trained the same as without a recorder."""
    folder = tmp_path_factory.mktemp("world")
    launch = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORLD}", str(SCRIPT))
    done = subprocess.run(
        [sys.executable, *launch, str(folder), *WAYS],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    said = sorted(done.stdout.splitlines())
    assert said == sorted(f"rank {rank}, {way}: the same" for rank in range(WORLD) for way in WAYS)
    return folder


def alone(clips: bool) -> tuple[np.ndarray, dict[str, list[float]]]:
    """One process with the whole batch: the norm of all gradients a step, and of each."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    model = Net()
    torch.set_default_dtype(torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    each: dict[str, list[float]] = {name: [] for name, _ in model.named_parameters()}
    for step in range(STEPS):
        whole = torch.randn(8, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        model(whole).square().mean().backward()
        for name, parameter in model.named_parameters():
            each[name].append(parameter.grad.norm().item())
        if clips:
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
        optimizer.zero_grad()
    return np.sqrt(np.square(list(each.values())).sum(0)), each


@pytest.mark.parametrize("way", ["copies", "sharded", "parallel"])
def test_the_norm_of_a_shared_parameter_is_that_of_the_whole(runs, way):
    run = stabdiag.load(runs / way)
    assert list(run.events_of("recorder-error")) == []
    assert run.info.processes == WORLD
    total, each = alone(clips=way != "parallel")
    table = run.table("grad.norm")
    assert list(table.steps) == list(range(STEPS))
    for name, expected in each.items():
        np.testing.assert_allclose(table.column(name), expected, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(run.table("run.grad_norm").first(), total, rtol=1e-6)
    assert {site.name: site.shape for site in run.sites("weight")}["second.weight"] == (6, 8)


def test_a_replica_that_parts_from_the_others_is_found_at_its_step_and_rank(runs):
    run = stabdiag.load(runs / "parted")
    differs, odd = run.table("replica.differs"), run.table("replica.odd_rank")
    column = differs.column("second.weight")
    first = differs.steps[np.flatnonzero(column > 0)[0]]
    # The change comes after the row of its step: the next one that is recorded whole shows it.
    assert first == FAULT_STEP + 1
    assert odd.column("second.weight")[np.flatnonzero(column > 0)[0]] == WORLD - 1
    assert (differs.column("head.weight")[differs.steps <= FAULT_STEP] == 0).all()
    whole = stabdiag.load(runs / "copies").table("replica.differs")
    assert (whole.values == 0).all()


def test_the_rank_that_a_value_was_lost_on_first_is_told(runs):
    run = stabdiag.load(runs / "lost")
    event = next(iter(run.events_of("nonfinite")))
    assert (event.rank, event.step, event.data["what"]) == (WORLD - 1, FAULT_STEP, "batch")


def test_each_process_stands_beside_the_others(runs):
    run = stabdiag.load(runs / "copies")
    losses = run.table("rank.loss")
    assert losses.names == ("rank-0", "rank-1")
    assert (losses.values[:, 0] != losses.values[:, 1]).all()
    np.testing.assert_allclose(run.table("run.loss").first(), losses.values.mean(1), rtol=1e-6)


def test_a_straggler_is_told_from_those_that_wait_for_it(runs):
    run = stabdiag.load(runs / "slow")
    data, forward = (run.table(f"rank.{name}_time").values[FAULT_STEP] for name in ("data", "forward"))
    assert data[WORLD - 1] >= PAUSE > 2 * (data + forward)[:-1].max()


def test_nobody_waits_for_a_rank_that_is_not_recorded(runs):
    run = stabdiag.load(runs / "half")
    assert (run.info.processes, run.info.world_size) == (1, WORLD)
    assert list(run.table("run.loss").steps) == list(range(STEPS))


def test_a_world_of_which_a_rank_left_nothing_is_read_all_the_same(runs, tmp_path):
    shutil.copytree(runs / "copies", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "rank-1")
    run = stabdiag.load(tmp_path / "run")
    assert list(run.table("run.loss").steps) == list(range(STEPS))


def test_the_diagnosis_names_the_rank_and_the_step_at_which_replicas_part(runs):
    finding = next(
        f for f in stabdiag.diagnose(stabdiag.load(runs / "parted")).findings if f.signature == "rank-desync"
    )
    assert finding.facts["rank"] == WORLD - 1
    assert finding.onset_step in (FAULT_STEP, FAULT_STEP + 1)
    assert finding.sites[0] == "second.weight"
