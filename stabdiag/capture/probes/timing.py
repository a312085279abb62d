"""Where the time of a step goes, and steps that take far longer than their kind."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import nn

from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured
from stabdiag.capture.subject import Subject
from stabdiag.core.tier import Tier

STALL = 10.0
STALL_SECONDS = 1.0
MEMORY = 50
LEAST = 10


@probe
class TimingProbe(Probe):
    """Adds to kind `run`; a step that stalls is an event.

    data_time       seconds from the end of the step before to the first call of the model
    forward_time    seconds from a call of the model to the backward pass, the loss included
    backward_time   seconds in backward passes
    optimizer_time  seconds in optimizer steps

    Micro-batches add up; what lies between them counts as data. Where DistributedDataParallel sends buffers
    round before it calls the model, the wait for the slowest process counts as none of them. The times are
    the host's: on an accelerator that runs behind it they tell when the work was handed over. A step stalls
    when it takes ten times the median of the last fifty, and a second at least, without what the recorder
    took.
    """

    id = "timing"
    tier = Tier.NONE
    scalars = ("data_time", "forward_time", "backward_time", "optimizer_time")

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._began = self._mark = perf_counter()
        self._in_forward = self._waiting = False
        self._seen = False
        self._spent = dict.fromkeys(self.scalars, 0.0)
        self._durations: deque[float] = deque(maxlen=MEMORY)
        self._recorder_before = 0.0

    def _pass(self, phase: str) -> None:
        """What has passed since the last mark was spent in `phase`."""
        now = perf_counter()
        self._spent[phase] += now - self._mark
        self._mark = now

    def on_call(
        self, prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self._seen = True
        if self._waiting:
            self._mark = perf_counter()
        elif not self._in_forward:
            self._pass("data_time")
        self._in_forward, self._waiting = True, False

    def on_exchange(self) -> None:
        if not self._in_forward:
            self._pass("data_time")
            self._waiting = True

    def on_backward_begin(self, roots: Sequence[torch.Tensor], scale: torch.Tensor | None) -> None:
        self._pass("forward_time" if self._in_forward else "data_time")
        self._in_forward = False

    def on_backward_end(self) -> None:
        self._pass("backward_time")

    def on_step_begin(self, optimizer: torch.optim.Optimizer, indices: Sequence[int]) -> None:
        self._mark = perf_counter()

    def on_step_end(self, optimizer: torch.optim.Optimizer | None, indices: Sequence[int]) -> None:
        if optimizer is not None:
            self._pass("optimizer_time")

    def harvest(self) -> Harvest:
        now = perf_counter()
        duration, self._began = now - self._began, now
        recorder = self.subject.guard.spent
        self._tell_stall(duration - (recorder - self._recorder_before))
        self._recorder_before = recorder
        spent = self._spent if self._seen else {}  # without calls of a module nothing can be told apart
        self._spent = dict.fromkeys(self.scalars, 0.0)
        self._mark, self._in_forward, self._waiting, self._seen = now, False, False, False
        return Harvest({}, partial(self._finish, spent))

    def _tell_stall(self, duration: float) -> None:
        if duration > STALL_SECONDS and len(self._durations) >= LEAST:
            usual = median(self._durations)
            if duration > STALL * usual:
                self.subject.event("stall", seconds=round(duration, 3), usual=round(usual, 6))
        self._durations.append(duration)

    def _finish(self, spent: dict[str, float], _arrays: Arrays, _scale: float) -> Measured:
        return Measured(scalars=spent)
