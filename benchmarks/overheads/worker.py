"""A process that trains under one monitor, so many steps as it is told to."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, cast

import torch

from overheads.monitors import MONITORS
from overheads.training import SIZES, Training


class Cost(NamedTuple):
    """Seconds of one step: CPU time of the training thread, and on the clock."""

    cpu: float
    wall: float


class Failed(Exception):
    """What a monitor raised, as text: most often that it is not installed."""


def _serve(pipe: Connection, monitor: str, size: str, folder: str) -> None:
    warnings.simplefilter("ignore")  # of monitors
    torch.set_num_threads(1)
    training = Training(SIZES[size])
    try:
        with MONITORS[monitor].enter(training, Path(folder)) as after_step:
            pipe.send(None)
            step = 0
            for steps, core in iter(pipe.recv, None):
                if core is not None:
                    os.sched_setaffinity(0, {core})
                costs = []
                for _ in range(steps):
                    tokens = training.tokens()
                    wall, cpu = time.perf_counter(), time.thread_time()
                    loss = training.update(tokens)
                    after_step(step, loss)
                    training.optimizer.zero_grad()
                    costs.append(Cost(time.thread_time() - cpu, time.perf_counter() - wall))
                    step += 1
                pipe.send(costs)
            pipe.send(_peak_mib())
    except Exception as error:
        pipe.send(Failed(f"{type(error).__name__}: {error}"))


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


class Worker:
    """The other end of such a process. What the monitor wrote lies in `folder` until the worker goes.

    Raises Failed where the monitor does.
    """

    def __init__(self, monitor: str, size: str) -> None:
        self.monitor = monitor
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
        """Starts so many steps, on that core alone if one is given."""
        self._pipe.send((steps, core))

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
