"""`stabdiag replay`: the table, the code for a script of one's own, and what it says where it cannot."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import stabdiag as tool

TRAINER = (
    "--steps=30 --layers=2 --heads=2 --width=16 --context=16 --batch=4 --warmup=3 --evaluate-every=0"
    " --device=cpu --lr=1e20 --final-lr=1e20 --clip=0"
)


@pytest.mark.slow
def test_the_bundled_trainer_makes_the_step_again_where_it_broke(stabdiag, tmp_path):
    (tmp_path / "text.txt").write_bytes(b"All happy families are alike.\n" * 200)
    words = ("-m", "stabdiag.reference.train", "--text=text.txt", *TRAINER.split())
    recorded = stabdiag("run", "--no-report", "--every=5", *words)
    assert recorded.returncode == 0, recorded.stderr
    assert "stabdiag replay " in recorded.stderr
    losses = tool.load(tmp_path / "stabdiag-runs").table("run.loss").first()
    step = int(np.flatnonzero(~np.isfinite(losses))[0])
    done = stabdiag("replay", f"--step={step}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    forward = next(i for i, line in enumerate(lines) if line.startswith("Forward"))
    backward = next(i for i, line in enumerate(lines) if line.startswith("Backward"))
    assert forward < backward
    assert sum("FIRST" in line for line in lines) == 1
    names = [line.split()[0] for line in lines[forward + 3 : backward]]
    assert names[0] == "tokens"
    assert names[-1] == "GPT"
    assert " ".join(lines[-2:]).endswith("equal to the run's, to the bit")
    later = stabdiag("replay", "--step=400")
    assert later.returncode == 2
    assert "the run has no step 400" in later.stderr


def noisy() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1))


def loss_of(output: torch.Tensor) -> torch.Tensor:
    return output.square().mean()


@pytest.fixture
def own(tmp_path):
    """A run of a script that is not the bundled one, whose loss is not finite in step 29; what `noisy` gave
    for its batch in the very state of that step, and the batch."""
    torch.set_num_threads(1)
    model = noisy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    recording = tool.watch(model, optimizer, log_dir=tmp_path / "stabdiag-runs", every=7, keep_batches=3)
    for step in range(40):
        x = torch.randn(16, 4)
        output = model(x)
        if step == 29:
            seen = output.detach().clone()
            output = output * float("inf")
        loss_of(output).backward()
        optimizer.step()
        optimizer.zero_grad()
    recording.close()
    return recording.path, seen


@pytest.mark.slow
def test_the_code_for_a_script_of_ones_own_does_the_same(stabdiag, own, tmp_path):
    path, seen = own
    done = stabdiag("replay", str(path))
    assert done.returncode == 0, done.stderr
    assert "import stabdiag" not in done.stdout
    assert "from stabdiag" not in done.stdout
    mine = (
        "model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.ReLU(),"
        " torch.nn.Linear(8, 1))\nmodel.load_state_dict(torch.load('weights.pt'))\n"
    )
    torch.save(noisy().state_dict(), tmp_path / "weights.pt")
    code = done.stdout.replace("model = ...", mine + "#").replace(
        "loss_of = ...", "loss_of = lambda output: output.square().mean()"
    )
    (tmp_path / "again.py").write_text(f"{code}\nprint(ranges.rows[4].low, ranges.rows[4].high)\n")
    again = subprocess.run(
        [sys.executable, "again.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    *table, extent = again.stdout.splitlines()
    assert [line.split()[:2] for line in table[:5]] == [
        ["forward", name] for name in ("0", "1", "2", "3", "Sequential")
    ]
    assert len(table) == 10
    assert extent == f"{seen.min().item()} {seen.max().item()}"


def test_code_for_a_step_whose_batch_was_not_kept_says_so(stabdiag, own):
    path, _ = own
    done = stabdiag("replay", str(path), "--step", "5")
    assert done.returncode == 0
    assert "--keep-batches" in done.stdout
    compile(done.stdout, "again.py", "exec")


def test_a_step_that_the_record_does_not_hold_is_an_error(stabdiag, own):
    path, _ = own
    done = stabdiag("replay", str(path), "--step", "1000")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "stabdiag: error: the flight record does not hold step 1000",
        "stabdiag: hint: it holds steps 0 to 29",
    ]


def test_a_run_without_a_record_is_an_error_of_one_line(stabdiag, record, falling):
    path = record("healthy", falling)
    done = stabdiag("replay", str(path))
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error == f"stabdiag: error: {path} has no flight record"
    assert "critical finding" in hint


def test_of_a_script_of_ones_own_no_torch_is_needed_to_print_the_code(own, tmp_path):
    path, _ = own
    code = (
        "import sys; from stabdiag.cli import stabdiag;"
        f"stabdiag.main(['replay', {str(path)!r}], standalone_mode=False, obj={{'debug': False}});"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"
