"""A process that trains under one monitor, so many steps as it is told to."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, cast

import torch

from overheads.monitors import MONITORS, AfterStep
from overheads.training import Size, Training


class Cost(NamedTuple):
    """Seconds of one step: CPU time of the training thread, and on the clock; on a GPU on its own clock,
    from event to event, with no wait in between."""

    cpu: float
    wall: float


class Failed(Exception):
    """What a monitor raised, as text: most often that it is not installed."""


def _serve(pipe: Connection, monitor: str, size: Size, folder: str) -> None:
    warnings.simplefilter("ignore")  # of monitors
    torch.set_num_threads(1)
    training = Training(size)
    try:
        with MONITORS[monitor].enter(training, Path(folder)) as after_step:
            pipe.send(None)
            step = 0
            for steps, core in iter(pipe.recv, None):
                if core is not None:
                    os.sched_setaffinity(0, {core})
                pipe.send(_train(training, after_step, range(step, step + steps)))
                step += steps
            pipe.send(_peak_mib())
    except Exception as error:
        pipe.send(Failed(f"{type(error).__name__}: {error}"))


def _train(training: Training, after_step: AfterStep, numbers: range) -> list[Cost]:
    clock = _device_clock if training.size.device == "cuda" else time.perf_counter
    marks: list[Any] = [clock()]
    cpu = []
    for number in numbers:
        began = time.thread_time()
        loss = training.update(training.tokens())
        after_step(number, loss)
        training.optimizer.zero_grad()
        cpu.append(time.thread_time() - began)
        marks.append(clock())
    if training.size.device == "cuda":
        torch.cuda.synchronize()
        wall = [a.elapsed_time(b) / 1000 for a, b in pairwise(marks)]
    else:
        wall = [b - a for a, b in pairwise(marks)]
    return [Cost(*both) for both in zip(cpu, wall, strict=True)]


def _device_clock() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


class Worker:
    """The other end of such a process. What the monitor wrote lies in `folder` until the worker goes.

    Raises Failed where the monitor does.
    """

    def __init__(self, monitor: str, size: Size, core: int | None = None) -> None:
        self.monitor = monitor
        self._core = core
        self._temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, monitor, size, str(self.folder)))
        self._process.start()
        theirs.close()
        self._answer()

    def _answer(self) -> object:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise Failed("the process ended") from None
        if isinstance(answer, Failed):
            raise answer
        return answer

    def begin(self, steps: int, core: int | None = None) -> None:
        """Starts so many steps, on that core alone if one is given here or to the worker."""
        self._pipe.send((steps, self._core if core is None else core))

    def finish(self) -> Sequence[Cost]:
        """Waits for the steps that were begun."""
        return cast("Sequence[Cost]", self._answer())

    def train(self, steps: int) -> Sequence[Cost]:
        self.begin(steps)
        return self.finish()

    def end(self) -> float:
        """Ends training and its monitor in good order; the most memory that the process had, MiB."""
        self._pipe.send(None)
        peak = cast("float", self._answer())
        self._process.join()
        return peak

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()
        self._temporary.cleanup()
