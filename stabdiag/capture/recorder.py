"""The recorder of one process: tells the probes of what training does, and ends each step with a row."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import nn

from stabdiag.capture import facts
from stabdiag.capture.clipping import Clip
from stabdiag.capture.compiled_regions import compiled_leaves
from stabdiag.capture.entrances import Entrances
from stabdiag.capture.flight import Flight
from stabdiag.capture.guard import Guard
from stabdiag.capture.plan import Follower, Leader
from stabdiag.capture.probe import PROBES, Probe, hears
from stabdiag.capture.row import Harvest, Row
from stabdiag.capture.rows import Rows, Sink
from stabdiag.capture.schedule import Schedule
from stabdiag.capture.second_look import SecondLook
from stabdiag.capture.shadow import Shadow
from stabdiag.capture.steps import StepClock
from stabdiag.capture.subject import Subject
from stabdiag.capture.unseen import UnseenSteps
from stabdiag.core.cadence import Cadence
from stabdiag.core.event import Event
from stabdiag.core.tier import Tier

SHADOWED = "torch.compile runs them: their outputs are those of an eager run of the same batch"
BY_HAND = "no optimizer exists: the script moves the weights by itself"
UNTRACED = "torch.compile runs the model: which output the loss is computed from is not seen in its graph"
HIDDEN = "torch.compile runs them, and has made no wrapper at which a call could be seen"

Listeners = dict[str, list[tuple[str, Callable[..., Any]]]]


class Recorder:
    """Everything that it does on behalf of training goes through its guard.

    Discovery calls `watch` with root modules and optimizers; the seams in torch call the `on_…` methods.
    """

    def __init__(
        self,
        sink: Sink,
        cadence: Cadence,
        in_backward: Callable[[], bool],
        before_forward: Callable[[], None],
        rank: int = 0,
        plan: Leader | Follower | None = None,
        flight: Flight | None = None,
    ) -> None:
        self._sink = sink
        self._rank = rank
        self._pid = os.getpid()
        self.step = 0
        self.guard = Guard(self._failed)
        self.flight = flight or Flight()
        self.flight.tell = self._event
        self.subject = Subject(self.guard, in_backward, self._event, self.flight)
        self._before_forward = before_forward
        self._schedule = Schedule(cadence, plan)
        self._clock = StepClock()
        self._unseen = UnseenSteps(self.subject)
        tells = (partial(self._tell, event) for event in ("on_evaluation", "on_exchange"))
        self._entrances = Entrances(self._on_call, *tells)
        self._shadow = Shadow(self.subject)
        self._probes: tuple[Probe, ...] = tuple(cls(self.subject) for cls in PROBES)
        self._armed = [probe for probe in self._probes if hears(probe, "arm")]
        self._disarmed = [probe for probe in self._probes if hears(probe, "disarm")]
        self._second_look = SecondLook(self._shadow)
        self._shadow.attach = [probe.on_shadow for probe in self._probes if hears(probe, "on_shadow")]
        self._listeners = {tier: self._listening(tier) for tier in Tier}
        scalars = (name for probe in self._probes for name in probe.scalars)
        self._rows = Rows(sink, self.guard, tuple(scalars), self._event, self._observe)
        self._backwards = 0
        self._looked_inside = False
        self._close_after_backward = False
        self._loss_told = False
        self._spent_before = 0.0
        self._closed_at = perf_counter()
        self._tier = Tier.NONE
        self._arm()

    def _listening(self, tier: Tier) -> Listeners:
        events = [name for name in vars(Probe) if name.startswith("on_")]
        return {
            event: [
                (probe.id, getattr(probe, event))
                for probe in self._probes
                if probe.tier <= tier and hears(probe, event)
            ]
            for event in events
        }

    def _tell(self, event: str, *args: Any) -> None:
        for id, listener in self._listeners[self._tier][event]:
            self.guard(id, listener, *args)

    # What discovery tells

    def watch(
        self,
        roots: Sequence[nn.Module],
        compiled: Sequence[tuple[nn.Module, nn.Module | None]],
        around: Sequence[nn.Module],
    ) -> None:
        """Adds root modules; see `Subject.add_roots`."""
        self._looked_inside = False
        self.guard("discovery", self._watch, roots, compiled, around)

    def _watch(
        self,
        roots: Sequence[nn.Module],
        compiled: Sequence[tuple[nn.Module, nn.Module | None]],
        around: Sequence[nn.Module],
    ) -> None:
        for root in self.subject.add_roots(roots, compiled, around):
            self._event("model", **facts.model(root.module, root.label))
            inside = {m for module, _ in self.subject.wrapped for m in module.modules()}
            ours = [m for name, m in root.modules().items() if name in self.subject.compiled]
            shadowed = sum(module in inside for module in ours)
            self._tell_compiled(shadowed, len(ours) - shadowed)
            if root.module in inside:
                self._event("coverage", what="logits", because=UNTRACED)
        self._changed()
        self._disarm()
        self._arm_probes()

    def _tell_compiled(self, shadowed: int, hidden: int) -> None:
        if shadowed:
            what = f"gradients with respect to the outputs of {shadowed} modules"
            self._event("coverage", what=what, because=SHADOWED)
        if hidden:
            what = f"outputs and attention of {hidden} modules"
            self._event("coverage", what=what, because=HIDDEN)

    def _look_inside(self, roots: Sequence[torch.Tensor]) -> None:
        """Takes the hooks off modules that turn out to run inside a compiled function."""
        leaves = compiled_leaves(roots)
        hidden = self.subject.hide(leaves) if leaves else []
        if hidden:
            self._tell_compiled(0, len(hidden))
            self._disarm()
            self._changed()
            self._arm_probes()

    def _changed(self) -> None:
        self._entrances.watch(self.subject.entries, self.subject.placements.wrappers)
        for probe in self._probes:
            self.guard(probe.id, probe.on_change)

    def knows(self, optimizer: torch.optim.Optimizer) -> bool:
        return optimizer in self.subject.optimizers

    @property
    def optimized(self) -> bool:
        """Whether any optimizer was ever known."""
        return self.subject.optimizers_seen > 0

    def add_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        self.guard("discovery", self._add_optimizer, optimizer)

    def _add_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        index = self.subject.add_optimizer(optimizer)
        self._event("optimizer", **facts.optimizer(optimizer, index))
        self._changed()

    # What the seams in torch tell

    def _on_call(self, prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._before_forward()
        if self._clock.overdue():
            self.close()
        self._tell("on_call", prefix, module, args, kwargs)
        if self._tier < Tier.STANDARD:
            self.guard("second-look", self._second_look.note, prefix, module, args, kwargs)

    def on_first_call(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """The call in which training was discovered: hooks that were set meanwhile missed its inputs."""
        for prefix, root in self.subject.roots.items():
            if root is module:
                self._tell("on_call", prefix, module, args, {})

    def on_backward_begin(self, roots: Sequence[Any], scale: torch.Tensor | None) -> None:
        self._backwards += 1
        if self.step == 0 and self.optimized:
            self.guard("coverage", self._unseen.backward)
        tensors = [root for root in roots if isinstance(root, torch.Tensor)]
        if not self._looked_inside:
            self._looked_inside = True
            self.guard("discovery", self._look_inside, tensors)
        if self._tier < Tier.STANDARD:
            self.guard("second-look", self._look_again, tensors)
        self._tell("on_backward_begin", tensors, scale)
        if not self._loss_told and tensors:
            self._loss_told = True
            self.guard("facts", lambda: self._event("loss", **facts.loss(tensors[0])))

    def _look_again(self, roots: Sequence[torch.Tensor]) -> None:
        if self._second_look.wanted(self.step, roots):
            # What is still to come of the step is recorded whole, too.
            heard, self._tier = self._listeners[self._tier]["on_call"], Tier.STANDARD
            self._arm_probes()
            missed = [entry for entry in self._listeners[self._tier]["on_call"] if entry not in heard]
            self._second_look.run(self.step, lambda *call: [self.guard(*entry, *call) for entry in missed])
        self._second_look.forget()

    def on_backward_end(self, counts_as_step: bool) -> None:
        self._tell("on_backward_end")
        if self._close_after_backward or counts_as_step:
            if counts_as_step:
                if self.step == 0:
                    self._event("coverage", what="updates", because=BY_HAND)
                self._tell("on_step_end", None, range(len(self.subject.parameters)))
            self._close_after_backward = False
            self.close()

    def on_clip(self, clip: Clip) -> None:
        self._tell("on_clip", clip)

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """From now on `step` is the one that this optimizer is about to make."""
        if not self.subject.in_backward() and self._clock.closes_before(self.subject.optimizers[optimizer]):
            self.close()
            self._backwards = 1  # the pass whose gradients this step uses

    def on_step_begin(self, optimizer: torch.optim.Optimizer) -> None:
        self._tell("on_step_begin", optimizer, self.subject.held_by(optimizer))

    def on_step_end(self, optimizer: torch.optim.Optimizer) -> None:
        if not self._backwards:
            self._clock.follows(self.subject.optimizers[optimizer])
            if self.step == 0:
                self.guard("coverage", self._unseen.step)
            return
        self._tell("on_step_end", optimizer, self.subject.held_by(optimizer))
        ends = self._clock.closes_after(self.subject.optimizers[optimizer])
        if self.subject.in_backward():
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

    # Steps

    def close(self, skipped: bool = False) -> None:
        """Ends the step: takes what the probes have, and writes the row as soon as it is on the host."""
        self.guard("row", self._close, skipped)
        self._clock.close()
        self._backwards = 0
        self.step += 1
        now = perf_counter()
        spent, self._spent_before = self.guard.spent - self._spent_before, self.guard.spent
        self._schedule.charge(self._tier, spent, now - self._closed_at)
        self._closed_at = now
        self._arm()

    def _close(self, skipped: bool) -> None:
        if self.step == 0:
            # Only now is it known in which order the modules run, and which of them the script calls.
            self.subject.refresh()
            self._changed()
        harvests: dict[str, Harvest] = {}
        if self._tier >= Tier.STANDARD:
            self._disarm()
        for probe in self._probes:
            harvest = self.guard(probe.id, probe.harvest) if probe.tier <= self._tier else None
            if harvest is not None:
                harvests[probe.id] = harvest
        self._rows.add(self.step, self._tier, skipped, harvests)

    def _observe(self, step: int, time: float, rows: Sequence[Row], scalars: Mapping[str, float]) -> None:
        self.guard("flight", self.flight.take, step, time, rows, scalars)
        self._schedule.observe(step, scalars.get("loss", 0.0), scalars.get("grad_norm", 0.0))

    def _arm(self) -> None:
        before, self._tier = self._tier, self._schedule.choose(self.step)
        if max(before, self._tier) >= Tier.FAST:
            self._arm_probes()

    def _arm_probes(self) -> None:
        for probe in self._armed:
            self.guard(probe.id, probe.arm, self._tier)
        if self._tier >= Tier.STANDARD:
            self._shadow.arm()

    def _disarm(self) -> None:
        self._shadow.disarm()
        for probe in self._disarmed:
            self.guard(probe.id, probe.disarm)

    def write_flight(self, because: str) -> None:
        """The process ends in bad order: writes what the last steps were made of."""
        self.guard("row", self._rows.flush)
        self.guard("flight", self.flight.end, because, self.step)

    def abandon(self) -> None:
        """Takes all hooks off; nothing more is written."""
        self._disarm()
        self._entrances.watch({}, ())
        self.flight.close_file()

    def end(self) -> None:
        """The process ends in good order."""
        if self._clock.overdue():
            self.close()
        self.guard("row", self._rows.flush)
        self.guard("flight", self.flight.answer)
        self.guard("flight", self.flight.bring_up_to_date)
        self.abandon()
        self._event("end", steps=self.step)
        if os.getpid() == self._pid:
            self.guard("store", self._sink.close)

    def _failed(self, probe: str, error: Exception) -> None:
        text = "".join(traceback.format_exception(error))
        self._event("recorder-error", probe=probe, error=f"{type(error).__name__}: {error}", traceback=text)

    def _event(self, event: str, at: int | None = None, **data: Any) -> None:
        if os.getpid() != self._pid:
            return
        try:
            self._sink.event(Event(event, time.time(), self.step if at is None else at, self._rank, data))
        except OSError:
            return  # the disk is full: rows go on being tried, and say so
