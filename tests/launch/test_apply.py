"""`stabdiag run --apply` and `--guard`, on real scripts."""

from __future__ import annotations

import signal
import sys

import pytest

from stabdiag.store.reader import load

TRAIN = """
import sys, torch
torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
factor, clip, bad, steps = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)
step = 0
while step < steps:
    x = torch.randn(16, 8)
    loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
    if 0 <= bad <= step:
        loss = loss * float("nan")
    optimizer.zero_grad()
    loss.backward()
    if clip:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    rate = optimizer.param_groups[0]["lr"]
    optimizer.param_groups[0]["lr"] = rate * factor
    optimizer.step()
    optimizer.param_groups[0]["lr"] = rate
    schedule.step()
    print(loss.item().hex(), rate)
    step += 1
print("loaded", sorted(name for name in sys.modules if name.startswith("stabdiag.intervene")))
"""


@pytest.fixture
def train(workshop):
    workshop.write("train.py", TRAIN)
    return workshop


def losses(done):
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith("loaded")]


@pytest.mark.slow
def test_a_run_with_fixes_applied_is_the_script_with_the_fixes_in_it(train):
    edited = train.plain(sys.executable, "train.py", "0.3", "0.5", "-1", "40")
    apply = ("--apply", "lower-learning-rate=0.3", "--apply", "clip-gradients=0.5")
    applied = train.run(*apply, "train.py", "1", "0", "-1", "40")
    assert losses(applied) == losses(edited)
    run = load(train.run_directory())
    assert run.info.configuration["apply"] == ["lower-learning-rate=0.3", "clip-gradients=0.5"]
    assert run.info.cwd == str(train.folder)
    assert "interventions: lower-learning-rate set 40 times, clip-gradients clipped" in applied.stderr


@pytest.mark.slow
def test_without_them_nothing_that_could_act_is_even_imported(train):
    done = train.run("train.py", "1", "0", "-1", "5")
    assert done.stdout.splitlines()[-1] == "loaded []"
    acted = train.run("--guard", "train.py", "1", "0", "-1", "5")
    assert "stabdiag.intervene.controller" in acted.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_guarded_run_that_is_lost_is_stopped_politely(train):
    done = train.run("--guard", "train.py", "1", "0", "10", "1000000")
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr
    assert "--guard: no gradient was finite in the last 20 steps: stopping the target (SIGINT)" in done.stderr
    run = load(train.run_directory())
    (asked,) = run.events_of("stop")
    assert asked.step == 29
    assert run.info.signal == "SIGINT"
    assert next(run.events_of("exception")).data["type"] == "KeyboardInterrupt"


@pytest.mark.slow
def test_a_run_is_stopped_at_a_step(train):
    done = train.run("--apply", "early-stopping=50", "train.py", "1", "0", "-1", "1000000")
    assert done.returncode == -signal.SIGINT
    assert load(train.run_directory()).steps >= 50


def test_a_wrong_fix_is_one_line_before_anything_was_made(train):
    done = train.run("--apply", "clip-gradient=0.5", "train.py")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "stabdiag: error: there is no intervention 'clip-gradient'",
        "stabdiag: hint: did you mean clip-gradients or clip-each-gradient or zero-gradients?",
    ]
    assert not (train.folder / "stabdiag-runs").exists()
