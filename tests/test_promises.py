"""The four promises, each broken by something real: another process, a signal, an error, a full disk."""

from __future__ import annotations

import copy
import io
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import stabdiag
from stabdiag.capture.hooks import Hook
from stabdiag.capture.probes import batches, gradients, outputs, targets, updates
from stabdiag.capture.probes.attention import AttentionProbe
from stabdiag.capture.probes.logits import LogitsProbe
from stabdiag.capture.probes.optimizers import OptimizerProbe
from stabdiag.capture.probes.replicas import ReplicaProbe
from stabdiag.capture.probes.router import RouterProbe
from stabdiag.capture.probes.run import RunProbe
from stabdiag.capture.probes.timing import TimingProbe
from stabdiag.core.tier import Tier

STEPS = 52
SCRIPTS = Path(__file__).parent / "capture" / "scripts.py"
KINDS = [
    "plain",
    "accumulation",
    "autocast",
    "evaluated",
    "scaler",
    "closure",
    "checkpoint",
    "reentrant-checkpoint",
    "gan",
    "by-hand",
    "in-backward",
    "penalty",
    "compiled",
    "bfloat16",
    "float64",
    "float8",
    "averaged",
    "unrolled",
    "mixture",
    "together",
    "deep",
    "modes",
    "variational",
    "transformer",
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*command: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_to_the_bit_and_so_is_what_it_prints(tmp_path, kind):
    alone = run(str(SCRIPTS), kind, cwd=tmp_path)
    command = ("-m", "stabdiag", "run", "-q", "--no-report", "--every", "1", str(SCRIPTS), kind)
    recorded = run(*command, cwd=tmp_path)
    assert alone.returncode == recorded.returncode == 0, recorded.stderr
    assert recorded.stdout == alone.stdout
    assert recorded.stderr == alone.stderr
    recording = stabdiag.load(tmp_path / "stabdiag-runs")
    assert recording.steps == STEPS
    assert list(recording.events_of("recorder-error")) == []
    assert recording.table("run.loss").first().size == STEPS
    assert set(recording.table("run.tier").first()) >= {Tier.STANDARD, Tier.SLOW, Tier.RARE}
    assert "output.rms" in recording


def train(watching: bool, folder: Path, steps: int = 12) -> tuple[list[float], stabdiag.api.Watch | None]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    recording = stabdiag.watch(model, optimizer, log_dir=folder, every=2) if watching else None
    losses = []
    for _ in range(steps):
        x = torch.randn(8, 4)
        loss = nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    if recording is not None:
        recording.close()
    return losses, recording


PROBES = [
    (outputs.OutputProbe, "_measure", {"run", "batch", "grad", "weight", "update"}),
    (outputs.OutputProbe, "_on_gradient", {"run", "batch", "grad", "weight", "update"}),
    (outputs.OutputProbe, "_finish", {"run", "batch", "grad", "weight", "update"}),
    (gradients.GradientProbe, "on_step_end", {"run", "batch", "output", "output_grad", "update"}),
    (gradients.GradientProbe, "on_clip", {"run", "batch", "output", "output_grad", "update"}),
    (gradients.GradientProbe, "harvest", {"run", "batch", "output", "output_grad", "update"}),
    (updates.UpdateProbe, "on_step_begin", {"run", "batch", "output", "output_grad", "grad"}),
    (updates.UpdateProbe, "on_step_end", {"run", "batch", "output", "output_grad", "grad"}),
    (batches.BatchProbe, "on_call", {"run", "output", "output_grad", "grad", "update"}),
    (targets.TargetsProbe, "on_backward_begin", {"run", "batch", "output", "grad", "update"}),
    (targets.TargetsProbe, "_finish", {"run", "batch", "output", "grad", "update"}),
    (RunProbe, "on_backward_begin", {"batch", "output", "output_grad", "grad", "update"}),
    (TimingProbe, "on_call", {"run", "batch", "output", "output_grad", "grad", "update"}),
    (OptimizerProbe, "on_step_end", {"run", "batch", "output", "output_grad", "grad", "update"}),
    (LogitsProbe, "on_backward_begin", {"run", "batch", "output", "output_grad", "grad", "update"}),
    (AttentionProbe, "harvest", {"run", "batch", "output", "output_grad", "grad", "update"}),
    (RouterProbe, "harvest", {"run", "batch", "output", "output_grad", "grad", "update"}),
    (ReplicaProbe, "harvest", {"run", "batch", "output", "output_grad", "grad", "update"}),
]


@pytest.mark.parametrize(("owner", "method", "others"), PROBES)
def test_an_error_in_a_probe_switches_off_that_probe_and_nothing_else(
    tmp_path, monkeypatch, owner, method, others
):
    expected, _ = train(False, tmp_path)
    original = getattr(owner, method)

    def fails_from_step_6(self, *args, **kwargs):
        if recorder_step() >= 6:
            raise RuntimeError("planted")
        return original(self, *args, **kwargs)

    def recorder_step() -> int:
        return max((r.step for r in recorders), default=0)

    recorders = []
    from stabdiag.capture.recorder import Recorder

    begin = Recorder.__init__

    def remember(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        recorders.append(self)

    monkeypatch.setattr(Recorder, "__init__", remember)
    monkeypatch.setattr(owner, method, fails_from_step_6)
    losses, recording = train(True, tmp_path)
    assert losses == expected
    errors = list(recording.run.events_of("recorder-error"))
    assert [error.data["probe"] for error in errors] == [owner.id]
    assert "planted" in errors[0].data["error"]
    for kind in others:
        assert recording.run.kinds[kind].steps[-1] >= 10, kind


def test_an_error_in_discovery_leaves_training_alone(tmp_path, monkeypatch):
    from stabdiag.capture.recorder import Recorder

    expected, _ = train(False, tmp_path)
    monkeypatch.setattr(Recorder, "_watch", lambda *_: 1 / 0)
    losses, recording = train(True, tmp_path)
    assert losses == expected
    assert [e.data["probe"] for e in recording.run.events_of("recorder-error")] == ["discovery"]


ENDLESS = """
import torch
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters())
for step in range(100000):
    loss = model(torch.randn(16, 8)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, flush=True)
"""


@pytest.mark.slow
def test_no_recorded_step_is_lost_when_training_is_killed_at_any_instant(tmp_path):
    """One interpreter forks a trainer for each instant: importing torch twenty times would take a minute."""
    script = tmp_path / "forks.py"
    script.write_text(
        f"""
import json, os, sys
from pathlib import Path
import torch
from stabdiag.capture.session import start
from stabdiag.core.cadence import Cadence
for number in range(20):
    folder = Path(f"run-{{number}}")
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({{"schema": "stabdiag.run/1"}}))
    sys.stdin.readline()
    child = os.fork()
    if child == 0:
        start(folder, Cadence(every=3))
        print("child", os.getpid(), flush=True)
        exec({ENDLESS!r})
        os._exit(0)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    instants = random.Random(0)
    for number in range(20):
        process.stdin.write("\n")
        process.stdin.flush()
        pid = int(process.stdout.readline().split()[1])
        told = 0
        for _ in range(instants.randrange(3, 40)):
            told = int(process.stdout.readline())
        time.sleep(instants.random() * 0.004)
        os.kill(pid, signal.SIGKILL)
        while (line := process.stdout.readline().strip()) != "dead":
            told = int(line) if line.isdigit() else told
        recording = stabdiag.load(tmp_path / f"run-{number}")
        assert recording.steps >= told + 1
        assert recording.table("run.loss").first()[: told + 1].min() > 0
        assert recording.notes == ()
    process.stdin.close()
    process.stdout.close()
    process.wait()


@pytest.mark.slow
def test_a_full_disk_stops_neither_training_nor_reading_what_was_written(tmp_path):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    script = tmp_path / "train.py"
    script.write_text(ENDLESS.replace("100000", "400"))
    alone = run(str(script), cwd=tmp_path)
    command = ("-m", "stabdiag", "run", "--no-report", "--every", "3", str(script))
    full = run(*command, cwd=tmp_path, preexec_fn=small_files)
    assert full.returncode == 0, full.stderr
    assert full.stdout == alone.stdout
    assert "Traceback" not in full.stderr
    recording = stabdiag.load(tmp_path / "stabdiag-runs")
    assert 30 < len(recording.table("run.loss").steps) < 400
    assert list(recording.table("run.loss").steps[:30]) == list(range(30))
    assert [e.data["probe"] for e in recording.events_of("recorder-error")] == ["store"]


def saved(model: nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    return buffer.getvalue()


def test_a_model_copied_or_saved_while_it_is_hooked_takes_no_hook_along(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = saved(model)
    with stabdiag.watch(model, optimizer, log_dir=tmp_path, every=1):
        assert model[0]._forward_hooks
        assert saved(model) == before
        assert not copy.deepcopy(model)[0]._forward_hooks
        model(torch.randn(2, 4)).sum().backward()
    assert not model[0]._forward_hooks
    allowed = [nn.Sequential, nn.Linear, nn.ReLU]
    with torch.serialization.safe_globals(allowed):
        assert torch.load(io.BytesIO(before), weights_only=True)(torch.ones(1, 4)).shape == (1, 4)


def test_hooks_of_the_script_stay_where_its_handles_find_them(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4))
    handle = model[0].register_forward_hook(lambda *_: None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with stabdiag.watch(model, optimizer, log_dir=tmp_path, every=1):
        copy.deepcopy(model)(torch.ones(1, 4))
        handle.remove()
        assert all(isinstance(hook, Hook) for hook in model[0]._forward_hooks.values())
    assert not model[0]._forward_hooks
