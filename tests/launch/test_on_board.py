from __future__ import annotations

import time

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.synthetic import run_of
from stabdiag.launch.on_board import OnBoard
from stabdiag.store.reader import load

SCRIPT = """
import sys, time, pathlib, torch
torch.set_num_threads(1)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(30):
    if step == 20:
        pathlib.Path("paused").touch()
        while not pathlib.Path("on").exists():
            time.sleep(0.05)
    loss = (model(torch.ones(8, 4)) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("tensorboard" in sys.modules)
"""


def steps_of(folder, tag):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    known = accumulator.Tags()["scalars"]
    return [event.step for event in accumulator.Scalars(tag)] if tag in known else []


def test_each_look_is_there_when_it_is_over(tmp_path):
    loss = np.linspace(2, 1, 40)
    run = run_of({"run.loss": loss})
    nothing = Diagnosis("stable", (), (), (), {"steps": 40})
    board = OnBoard()
    board.began(tmp_path)
    for last in (9, 19, 29):
        board.looked(run.window(0, last), nothing)
        assert steps_of(tmp_path / "tensorboard", "run/loss") == list(range(last + 1))
    board.ended(run, nothing)
    assert steps_of(tmp_path / "tensorboard", "run/loss") == list(range(40))


def test_a_run_is_in_tensorboard_while_it_trains_and_whole_at_its_end(workshop, wait_for):
    """Written by the supervisor: the process that trains never imports it."""
    workshop.write("train.py", SCRIPT)
    process = workshop.start("--tensorboard", "train.py")
    try:
        wait_for(workshop.folder / "paused")
        board = workshop.run_directory() / "tensorboard"
        deadline = time.monotonic() + 40
        while len(steps_of(board, "run/loss")) < 20 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert steps_of(board, "run/loss") == list(range(20))
    finally:
        workshop.write("on", "")
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (0, "False\n"), stderr
    assert steps_of(board, "run/loss") == list(range(30))
    recorded = load(workshop.run_directory()).table("grad.norm").steps.tolist()
    assert steps_of(board, "grad.norm/weight") == recorded
    assert len(list(board.iterdir())) == 1
