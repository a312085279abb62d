"""The recorder of one process: feeds the probes with what training does, and writes one row a step."""

from __future__ import annotations

import os
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from stabdiag.capture import facts
from stabdiag.capture.batches import BatchProbe
from stabdiag.capture.gradients import GradientProbe
from stabdiag.capture.guard import Guard
from stabdiag.capture.outputs import OutputProbe
from stabdiag.capture.parameters import Inventory
from stabdiag.capture.row import Harvest, Measured, Probe, Row
from stabdiag.capture.scalars import ScalarProbe
from stabdiag.capture.schedule import Schedule
from stabdiag.capture.steps import StepClock
from stabdiag.capture.transfer import HostCopy
from stabdiag.capture.updates import UpdateProbe
from stabdiag.core.event import Event


class Sink(Protocol):
    """Where rows and events go. Both methods may raise OSError."""

    def write(self, kind: str, step: int, time: float, sites: Any, columns: Any) -> None: ...

    def event(self, event: Event) -> None: ...


class Recorder:
    """Everything that it does on behalf of training goes through its guard.

    Discovery calls `watch` with root modules and optimizers; the seams in torch call the `on_…` methods.
    """

    def __init__(
        self,
        sink: Sink,
        every: int,
        in_backward: Callable[[], bool],
        before_forward: Callable[[], None],
        rank: int = 0,
    ) -> None:
        self._sink = sink
        self._rank = rank
        self._pid = os.getpid()
        self.step = 0
        self.guard = Guard(self._failed)
        self._in_backward = in_backward
        self._schedule = Schedule(every)
        self._clock = StepClock()
        self._inventory = Inventory()
        self._outputs = OutputProbe(self.guard, in_backward)
        self._gradients = GradientProbe()
        self._updates = UpdateProbe()
        self._batches = BatchProbe(self.guard, before_forward)
        self._scalars = ScalarProbe()
        self._probes: tuple[Probe, ...] = (
            self._outputs,
            self._gradients,
            self._updates,
            self._batches,
            self._scalars,
        )
        self._wrappers: dict[int, nn.Module | None] = {}
        # Weak, as a later optimizer may have the address of one that is gone.
        self._optimizers: weakref.WeakKeyDictionary[torch.optim.Optimizer, int] = weakref.WeakKeyDictionary()
        self._optimizers_seen = 0
        self._stepping = False
        self._backwards = 0
        self._evaluations = 0
        self._close_after_backward = False
        self._pending: tuple[int, float, bool, HostCopy, dict[str, Harvest]] | None = None
        self._loss_told = False
        self._nonfinite_told: set[str] = set()
        self._spent_before = 0.0
        self._unwritten = 0
        self._arm()

    # What discovery tells

    def watch(
        self, roots: Sequence[nn.Module], compiled: Sequence[tuple[nn.Module, nn.Module | None]] = ()
    ) -> None:
        """Adds root modules. `compiled` are modules given to torch.compile and their wrappers: inside of
        them nothing is hooked, as it would be traced."""
        self.guard("discovery", self._watch, roots, compiled)

    def _watch(
        self, roots: Sequence[nn.Module], compiled: Sequence[tuple[nn.Module, nn.Module | None]]
    ) -> None:
        self._wrappers.update((id(module), wrapper) for module, wrapper in compiled)
        inside = {m for outer, _ in compiled for m in outer.modules()}
        for root in self._inventory.add(roots):
            self._event("model", **facts.model(root.module, root.label))
            modules = root.modules()
            hidden = [name for name, module in modules.items() if module in inside]
            self._outputs.watch({n: m for n, m in modules.items() if m not in inside})
            if hidden:
                because = "torch.compile runs the module; its parameters, gradients and updates are recorded"
                self._event("coverage", what=f"outputs of {len(hidden)} modules", because=because)
        self._watch_batches()
        self._sites_changed()
        self._disarm_and_arm()

    def _watch_batches(self) -> None:
        entries = self._inventory.entries(self._outputs.fired)
        calls = {prefix: self._wrappers.get(id(module), module) for prefix, module in entries.items()}
        self._batches.watch({prefix: (entries[prefix], c) for prefix, c in calls.items() if c is not None})

    def knows(self, optimizer: torch.optim.Optimizer) -> bool:
        return optimizer in self._optimizers

    @property
    def optimized(self) -> bool:
        """Whether any optimizer was ever known."""
        return self._optimizers_seen > 0

    def add_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        self.guard("discovery", self._add_optimizer, optimizer)

    def _add_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        index = self._optimizers[optimizer] = self._optimizers_seen
        self._optimizers_seen += 1
        held = [p for group in optimizer.param_groups for p in group["params"]]
        self._inventory.optimized(held)
        self._event("optimizer", **facts.optimizer(optimizer, index))
        self._sites_changed()

    def _sites_changed(self) -> None:
        parameters, sites = self._inventory.sites(self._outputs.order())
        self._gradients.watch(parameters, sites)
        self._updates.watch(parameters, sites)

    # What the seams in torch tell

    def on_backward_begin(self, roots: Sequence[Any], scale: torch.Tensor | None) -> None:
        self._backwards += 1
        tensors = [root for root in roots if isinstance(root, torch.Tensor)]
        self._evaluations += 1
        if not self._stepping or self._evaluations == 1:  # a closure may evaluate the loss many times
            self.guard("run", self._scalars.add_loss, tensors, scale)
        primary = self._inventory.primary
        self.guard("grad", lambda: self._gradients.before_backward(self._gradients.indices(primary)))
        if not self._loss_told and tensors:
            self._loss_told = True
            self.guard("facts", lambda: self._event("loss", **facts.loss(tensors[0])))

    def on_backward_end(self, counts_as_step: bool) -> None:
        if self._close_after_backward or counts_as_step:
            if counts_as_step:
                everything = range(len(self._inventory))
                self.guard("grad", self._gradients.after_step, everything, self._batches.samples)
            self._close_after_backward = False
            self.close()

    def on_clip(self, parameters: list[torch.Tensor], max_norm: float, total: torch.Tensor) -> None:
        self.guard(
            "grad",
            lambda: self._gradients.before_clipping(self._gradients.indices(parameters), max_norm, total),
        )

    def on_step_begin(self, optimizer: torch.optim.Optimizer) -> None:
        self._stepping = True
        if not self._in_backward() and self._clock.closes_before(self._optimizers[optimizer]):
            self.close()
            self._backwards = 1  # the pass whose gradients this step uses
        self._evaluations = 0
        self.guard("update", lambda: self._updates.before_step(self._indices(optimizer)))

    def on_step_end(self, optimizer: torch.optim.Optimizer) -> None:
        self._stepping = False
        if not self._backwards:
            return
        self.guard("update", lambda: self._updates.after_step(self._indices(optimizer)))
        samples = self._batches.samples
        self.guard("grad", lambda: self._gradients.after_step(self._indices(optimizer), samples))
        index = self._optimizers[optimizer]
        self.guard("run", self._scalars.after_step, index, optimizer)
        ends = self._clock.closes_after(index)
        if self._in_backward():
            self._close_after_backward = True
        elif ends:
            self.close()

    def on_step_skipped(self) -> None:
        """A gradient scaler withheld the optimizer step because it found a non-finite gradient."""
        self._event("skipped-step")
        self.close(skipped=True)

    @property
    def stepped(self) -> bool:
        """Whether an optimizer has stepped since the last row."""
        return self._clock.open

    @property
    def backwards(self) -> int:
        """Backward passes since the last row."""
        return self._backwards

    def _indices(self, optimizer: torch.optim.Optimizer) -> list[int]:
        return self._gradients.indices(p for group in optimizer.param_groups for p in group["params"])

    def on_first_call(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """The call in which training was discovered: hooks that were set meanwhile missed its inputs."""
        for prefix, entry in self._inventory.entries(set()).items():
            if entry is module:
                self.guard("batch", self._batches.add_inputs, prefix, module, args, {})

    # Rows

    def close(self, skipped: bool = False) -> None:
        """Ends the step: takes what the probes have, and writes the row as soon as it is on the host."""
        if self.step == 0:
            self.guard("discovery", self._after_first_forward)
        self.guard("row", self._close, skipped)
        self._clock.close()
        self._backwards = 0
        self.step += 1
        self._arm()

    def _close(self, skipped: bool) -> None:
        harvests: dict[str, Harvest] = {}
        tensors: dict[str, torch.Tensor] = {}
        for probe in self._probes:
            harvest = self.guard(probe.name, probe.harvest)
            if harvest is not None:
                harvests[probe.name] = harvest
                tensors |= {f"{probe.name}/{key}": value for key, value in harvest.tensors.items()}
        copy = HostCopy(tensors)
        self.flush()
        self._pending = (self.step, time.time(), skipped, copy, harvests)
        if not copy.asynchronous:
            self.flush()

    def flush(self) -> None:
        """Writes the row that is on its way from the device, if there is one."""
        pending, self._pending = self._pending, None
        if pending is None or os.getpid() != self._pid:
            return
        with np.errstate(all="ignore"):  # non-finite numbers are the point; numpy must not warn of them
            self._write_row(*pending)

    def _write_row(
        self, step: int, now: float, skipped: bool, copy: HostCopy, harvests: dict[str, Harvest]
    ) -> None:
        arrays = copy.arrays()
        scale = float(arrays.get("run/scale", 1.0)) or 1.0
        rows: list[Row] = []
        scalars: dict[str, float] = {"skipped": float(skipped)}
        for name, harvest in harvests.items():
            own = {k.removeprefix(f"{name}/"): a for k, a in arrays.items() if k.startswith(f"{name}/")}
            measured: Measured | None = self.guard(name, harvest.finish, own, scale)
            if measured is not None:
                rows += measured.rows
                scalars |= measured.scalars
        spent = self.guard.spent
        scalars["overhead"], self._spent_before = spent - self._spent_before, spent
        for row in rows:
            if row.kind == "run":
                self._scalars.complete(row, scalars)
        for row in rows:
            self._write(step, now, row)
        self._schedule.observe(step, scalars.get("loss", 0.0), scalars.get("grad_norm", 0.0))
        self._tell_nonfinite(step, rows, scalars)

    def _write(self, step: int, now: float, row: Row) -> None:
        try:
            self._sink.write(row.kind, step, now, row.sites, row.columns)
        except OSError as error:
            # The next row is tried again: a full disk may empty.
            self._unwritten += 1
            if self._unwritten == 1:
                self._event("recorder-error", probe="store", error=str(error))

    def _tell_nonfinite(self, step: int, rows: list[Row], scalars: dict[str, float]) -> None:
        places = {"loss": ["loss"] if scalars.get("nonfinite", 0) > 0 else []}
        for row in rows:
            if row.kind != "run":
                bad = np.flatnonzero(row.columns["nonfinite"] > 0)
                places[row.kind] = [row.sites[i].name for i in bad[:8]]
        for what, sites in places.items():
            if sites and what not in self._nonfinite_told:
                self._nonfinite_told.add(what)
                self._event("nonfinite", at=step, what=what, sites=sites)

    def _arm(self) -> None:
        if self._schedule.due(self.step):
            for probe in self._probes:
                self.guard(probe.name, probe.arm)

    def _disarm_and_arm(self) -> None:
        self._outputs.disarm()
        if self._schedule.due(self.step):
            self._outputs.arm()

    def _after_first_forward(self) -> None:
        # Only now is it known in which order the modules run, and which of them the script calls.
        self._sites_changed()
        self._watch_batches()

    def abandon(self) -> None:
        """Takes all hooks off; nothing more is written."""
        self._outputs.disarm()
        self._batches.watch({})

    def end(self) -> None:
        """The process ends in good order."""
        self.guard("row", self.flush)
        self.abandon()
        self._event("end", steps=self.step)

    def _failed(self, probe: str, error: Exception) -> None:
        text = "".join(traceback.format_exception(error))
        self._event("recorder-error", probe=probe, error=f"{type(error).__name__}: {error}", traceback=text)

    def _event(self, event: str, at: int | None = None, **data: Any) -> None:
        if os.getpid() != self._pid:
            return
        step = self.step if at is None else at
        try:
            self._sink.event(Event(event, time.time(), step, self._rank, data))
        except OSError:
            self._unwritten += 1
