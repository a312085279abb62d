"""An onlooker of a run: before it, while it goes on, after it, and when nobody wrote its end."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time

import numpy as np
import pytest

from stabdiag.core.config import Configuration
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.errors import DamagedRun
from stabdiag.core.event import Event
from stabdiag.core.run import RunInfo
from stabdiag.core.site import Site
from stabdiag.launch.listener import Listeners
from stabdiag.launch.onlooker import Onlooker
from stabdiag.launch.voice import Voice
from stabdiag.render.look import State
from stabdiag.store.events import EventLog
from stabdiag.store.findings import write_findings
from stabdiag.store.info import write_info
from stabdiag.store.writer import RankWriter

LONG_AGO = 10_000.0


class Training:
    """Writes a run as a process does, `age` seconds ago."""

    def __init__(self, path, pid, age=0.0):
        path.mkdir(parents=True)
        self.path, self.began = path, time.time() - age
        self.info = RunInfo(command=("train.py",), started=self.began, host=platform.node())
        write_info(path, self.info)
        EventLog(path).append(Event("process", self.began, data={"pid": pid, "world_size": 1}))
        self.writer = RankWriter(path, 0)

    def step(self, step):
        loss = {"loss": np.array([2.0], np.float32), "nonfinite": np.zeros(1, np.float32)}
        self.writer.write("run", step, self.began + step / 100, [Site("run", "run")], loss)


def onlooker(where):
    return Onlooker(where, Configuration(), Listeners((), Voice(quiet=True)))


@pytest.fixture
def dead():
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def test_a_run_that_is_not_there_yet_is_waited_for(tmp_path):
    looking = onlooker(tmp_path / "later")
    assert looking.look().state is State.waiting
    training = Training(tmp_path / "later", os.getpid())
    assert looking.look().state is State.waiting
    training.step(0)
    look = looking.look()
    assert (look.state, look.run.steps, look.name) == (State.training, 1, "later")


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "a.txt").write_text("no run")
    with pytest.raises(DamagedRun, match="is a file"):
        onlooker(tmp_path / "a.txt")


def test_a_run_whose_processes_are_gone_is_over(tmp_path, dead):
    Training(tmp_path / "run", dead, age=LONG_AGO).step(0)
    looking = onlooker(tmp_path / "run")
    looking.start()
    assert looking.over.wait(20)
    assert looking.latest.state is State.gone


def test_one_that_has_just_lost_its_processes_may_still_be_closed(tmp_path, dead):
    Training(tmp_path / "run", dead).step(0)
    assert onlooker(tmp_path / "run").look().state is State.training


def test_a_living_process_is_waited_for_however_long_a_step_takes(tmp_path):
    Training(tmp_path / "run", os.getpid(), age=LONG_AGO).step(0)
    assert onlooker(tmp_path / "run").look().state is State.training


def test_nobody_here_knows_of_a_process_on_another_host(tmp_path, dead):
    training = Training(tmp_path / "run", dead, age=LONG_AGO)
    write_info(training.path, RunInfo(command=("train.py",), host="elsewhere"))
    training.step(0)
    assert onlooker(tmp_path / "run").look().state is State.training


@pytest.mark.parametrize("pid", [-1, 0, 2**70, "1", None])
def test_a_damaged_process_number_is_no_process(tmp_path, pid):
    Training(tmp_path / "run", pid, age=LONG_AGO).step(0)
    assert onlooker(tmp_path / "run").look().state is State.gone


def test_an_ended_run_is_over(tmp_path, dead):
    training = Training(tmp_path / "run", dead)
    training.step(0)
    write_info(training.path, RunInfo(command=("train.py",), ended=time.time(), exit_status=0))
    looking = onlooker(tmp_path / "run")
    looking.start()
    assert looking.over.wait(20)
    assert looking.latest.state is State.ended


def told(steps):
    return Diagnosis("at-risk", (), (), (), {"path": "", "command": [], "steps": steps})


def test_the_diagnosis_of_the_supervisor_is_taken_while_it_keeps_up(tmp_path):
    training = Training(tmp_path / "run", os.getpid())
    for step in range(3):
        training.step(step)
    write_findings(training.path, told(1))
    looking = onlooker(training.path)
    assert looking.look().diagnosis.verdict == "at-risk"
    os.utime(training.path / "findings.json", (0, 0))
    assert looking.look().diagnosis.verdict == "stable"  # nobody has written one for long: our own
    write_findings(training.path, told(3))
    os.utime(training.path / "findings.json", (1, 1))
    assert looking.look().diagnosis.verdict == "at-risk"  # old, and of all there is


def test_a_failure_ends_the_looking_and_is_kept(tmp_path):
    training = Training(tmp_path / "run", os.getpid())
    looking = onlooker(training.path)
    (training.path / "run.json").write_text('{"schema": "stabdiag.run/99"}')
    looking.start()
    assert looking.over.wait(20)
    assert isinstance(looking.failure, DamagedRun)


def test_of_the_log_of_another_tool_nobody_knows_whether_its_training_goes_on(tmp_path):
    log = tmp_path / "logs" / "metrics.csv"
    log.parent.mkdir()
    log.write_text(f"step,loss,timestamp\n1,2.0,{time.time() - LONG_AGO}\n")
    assert onlooker(log.parent).look().state is State.quiet
    log.write_text(f"step,loss,timestamp\n1,2.0,{time.time()}\n")
    assert onlooker(log.parent).look().state is State.training
