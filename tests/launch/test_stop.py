"""The polite end of a target: SIGINT, time to write a checkpoint, SIGTERM; and the run says why."""

from __future__ import annotations

import signal
import time

from stabdiag.core.event import Event
from stabdiag.launch.stop import PoliteStop
from stabdiag.launch.voice import Voice
from stabdiag.store.events import EventLog
from stabdiag.store.reader import load

CHECKPOINT = """
import torch
torch.set_num_threads(1)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=float("nan"))
try:
    while True:
        optimizer.zero_grad()
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
except KeyboardInterrupt:
    print("checkpoint written")
"""


class Target:
    pid = 0

    def __init__(self):
        self.sent = []

    def send(self, number):
        self.sent.append(number)


def test_an_interrupt_comes_first_and_an_end_only_after_the_grace(tmp_path, capsys):
    target = Target()
    stop = PoliteStop(target, tmp_path, Voice(), grace=0.3)
    for _ in range(3):
        stop.insist("--stop-on critical: loss-spike")
    assert target.sent == [signal.SIGINT]
    time.sleep(0.35)
    for _ in range(3):
        stop.insist("--stop-on critical: loss-spike")
    assert target.sent == [signal.SIGINT, signal.SIGTERM]
    assert capsys.readouterr().err.splitlines() == [
        "stabdiag: --stop-on critical: loss-spike: stopping the target (SIGINT)",
        "stabdiag: --stop-on critical: loss-spike: stopping the target (SIGTERM)",
    ]
    (event,) = load(tmp_path).events_of("stop")
    assert event.data["because"] == "--stop-on critical: loss-spike"


def test_what_an_intervention_wrote_is_not_written_again(tmp_path):
    EventLog(tmp_path).append(Event("stop", 1.0, 3, data={"because": "early-stopping"}))
    PoliteStop(Target(), tmp_path, Voice(quiet=True)).insist("early-stopping")
    assert [event.data["because"] for event in load(tmp_path).events_of("stop")] == ["early-stopping"]


def test_a_target_that_writes_its_checkpoint_and_the_summary_that_says_who_stopped_it(workshop):
    workshop.write("train.py", CHECKPOINT)
    done = workshop.run("--stop-on", "critical", "train.py")
    assert (done.returncode, done.stdout) == (0, "checkpoint written\n")
    assert "--stop-on critical: nonfinite-origin: stopping the target (SIGINT)" in done.stderr
    assert "stopped by --stop-on critical: nonfinite-origin; before that:" in done.stderr
