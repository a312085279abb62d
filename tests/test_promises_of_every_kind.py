"""Promises two and three for each kind of training: every probe fails at once, and a kill at any instant."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import stabdiag

sys.path.append(str(Path(__file__).parent / "capture"))
from scripts import KINDS

# One interpreter imports torch and forks a trainer for each line that it reads: kind, folder, and how.
# `rows` takes down each row that the store has taken, before training goes on; with `fail` every probe
# raises an error in all that it is called for, from the fourth step on.
FORKS = """
import json, os, sys
import torch
torch.set_num_threads(1)
sys.path.append(sys.argv[1])
from scripts import KINDS
from stabdiag.capture.probe import PROBES, Probe
from stabdiag.capture.session import start
from stabdiag.capture.recorder import Recorder
from stabdiag.core.cadence import Cadence
from stabdiag.store.writer import RankWriter
from pathlib import Path

EVENTS = [name for name in vars(Probe) if name.startswith("on_") or name in ("arm", "disarm", "harvest")]
recorders = []

def tell_rows(path):
    told, write = os.open(path, os.O_WRONLY | os.O_CREAT), RankWriter.write
    def telling(self, kind, step, *rest, **more):
        write(self, kind, step, *rest, **more)
        os.write(told, f"{kind} {step}\\n".encode())
    RankWriter.write = telling

def plant_errors():
    begin = Recorder.__init__
    def remember(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        recorders.append(self)
    Recorder.__init__ = remember
    for cls in list(PROBES):
        for name in EVENTS:
            method = getattr(cls, name)
            def failing(self, *args, method=method, **kwargs):
                if any(recorder.step >= 3 for recorder in recorders):
                    raise RuntimeError("planted")
                return method(self, *args, **kwargs)
            setattr(cls, name, failing)

def train(kind, folder, how):
    folder = Path(folder)
    out = os.open(folder / "printed", os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    if how != "alone":
        (folder / "run.json").write_text(json.dumps({"schema": "stabdiag.run/1"}))
        tell_rows(folder / "rows") if how == "rows" else plant_errors()
        start(folder, Cadence(every=1))
    torch.manual_seed(0)
    for value in KINDS[kind]():
        print(value.detach().double().sum().item().hex(), flush=True)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            train(*json.loads(line))
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
            status = 1
        os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
Fork = Callable[[str, Path, str], int]


class Forks:
    def __init__(self, script: Path) -> None:
        script.write_text(FORKS)
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(Path(__file__).parent / "capture")],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, kind: str, folder: Path, how: str) -> int:
        """The process that trains."""
        folder.mkdir()
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([kind, str(folder), how]) + "\n")
        self.process.stdin.flush()
        return self._number()

    def wait(self) -> int:
        """The exit code of the one that was started."""
        return self._number()

    def _number(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def forks(tmp_path_factory) -> Iterator[Forks]:
    forks = Forks(tmp_path_factory.mktemp("forks") / "forks.py")
    yield forks
    forks.process.communicate()


def rows(folder: Path) -> list[list[str]]:
    path = folder / "rows"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_recorded_step_is_lost_when_it_is_killed_at_any_instant(forks, tmp_path, kind):
    instants = random.Random(kind)
    child = forks.start(kind, tmp_path / "run", "rows")
    enough, deadline = instants.randrange(30, 300), time.monotonic() + 60
    while len(rows(tmp_path / "run")) < enough and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(instants.random() * 0.02)
    os.kill(child, signal.SIGKILL)
    assert forks.wait() == -signal.SIGKILL
    told = rows(tmp_path / "run")
    assert len(told) >= enough
    run = stabdiag.load(tmp_path / "run")
    for written in {name for name, _ in told}:
        steps = {int(step) for name, step in told if name == written}
        assert steps <= set(run.kinds[written].steps.tolist()), written


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_to_the_bit_where_every_probe_fails(forks, tmp_path, kind):
    forks.start(kind, tmp_path / "alone", "alone")
    assert forks.wait() == 0
    forks.start(kind, tmp_path / "run", "fail")
    assert forks.wait() == 0
    assert (tmp_path / "run" / "printed").read_bytes() == (tmp_path / "alone" / "printed").read_bytes()
    run = stabdiag.load(tmp_path / "run")
    errors = [event.data for event in run.events_of("recorder-error")]
    assert len(errors) == len({error["probe"] for error in errors}) >= 10
    assert all("planted" in error["error"] for error in errors)
