"""A recording session: from the import of torch, or from `watch`, to the end of the process."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stabdiag.capture import facts
from stabdiag.capture.actor import Actor, Call
from stabdiag.capture.clipping import Clip
from stabdiag.capture.discovery import Discovery, compiled_among
from stabdiag.capture.flight import Flight
from stabdiag.capture.guard import Guard
from stabdiag.capture.instances import Instances
from stabdiag.capture.interruptions import before_termination
from stabdiag.capture.leaves import leaves
from stabdiag.capture.plan import plan_of
from stabdiag.capture.recorder import Recorder
from stabdiag.capture.roots import owners, unwrapped
from stabdiag.capture.scaling import scaler_of
from stabdiag.capture.seams import Seams
from stabdiag.capture.sink import RunSink, rank_and_world
from stabdiag.capture.wrapping import stepping
from stabdiag.core.cadence import Cadence
from stabdiag.core.event import Event
from stabdiag.store.events import EventLog

LOOKS = 16
"""Backward passes whose graphs are searched for modules that no optimizer led to: of players that take turns
each has its own."""


class Session:
    """Finds what is trained, and makes a recorder for it when training begins; a process that never
    trains writes nothing."""

    def __init__(
        self,
        run_dir: Path,
        cadence: Cadence,
        loss_closure: Callable[[], torch.Tensor] | None = None,
        actor: Actor | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._actor = actor
        self._cadence = cadence
        self._loss_closure = loss_closure
        self._guard = Guard(self._failed)
        self._recorder: Recorder | None = None
        self._given: set[int] | None = None
        self._looks = 0
        self._scaler_states: Any = None
        self._scaling: Any = None  # the scaler that multiplied a loss last
        self._optimizers: Instances[torch.optim.Optimizer] = Instances(torch.optim.Optimizer)
        self._scalers: Instances[Any] = Instances(torch.amp.GradScaler)
        self._discovery = Discovery(self._on_module_call)
        self._seams = Seams(self)

    @property
    def steps(self) -> int:
        return self._recorder.step if self._recorder else 0

    def watch(self, models: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Records these from now on, and no others; optimizers that hold parameters of the models join."""
        self._discovery.settle()
        self._scalers.adopt()
        self._given = {id(p) for model in models for p in model.parameters()}
        recorder = self._begun()
        inside = [module for model in models for module in model.modules()]
        recorder.watch([unwrapped(model) for model in models], compiled_among(inside), inside)
        for optimizer in optimizers:
            recorder.add_optimizer(optimizer)

    # Discovery

    def _on_module_call(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._guard("discovery", self._at_first_call, module, args)

    def _at_first_call(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._optimizers:
            self._discover()
            if self._recorder is not None:
                self._discovery.settle()
                self._recorder.on_first_call(module, args)
                self._forward_begins()

    def _discover(self) -> None:
        """Takes in the optimizers that are new, and the modules that own their parameters."""
        modules = self._discovery.modules
        known = stepping(self._optimizers)
        new = [o for o in known if self._recorder is None or not self._recorder.knows(o)]
        if known:
            trained = [p for o in new for group in o.param_groups for p in group["params"]]
        else:
            trained = [p for m in modules for p in m.parameters() if p.requires_grad]
        found = owners(modules, trained)
        if found or new:
            recorder = self._begun()
            recorder.watch(found, self._discovery.compiled, modules)
            for optimizer in new:
                recorder.add_optimizer(optimizer)

    def _begun(self) -> Recorder:
        if self._recorder is None:
            sink = RunSink(self._run_dir)
            _, world = rank_and_world()
            sink.event(Event("process", time.time(), None, sink.rank, facts.process(world)))
            self._recorder = Recorder(
                sink,
                self._cadence,
                in_backward=lambda: self._seams.backward.active,
                before_forward=self._before_forward,
                rank=sink.rank,
                plan=plan_of(self._run_dir, sink.rank, world),
                flight=Flight(self._run_dir / "flight" / f"rank-{sink.rank}", self._cadence.keep_batches),
            )
            self._recorder.subject.loss_closure = self._loss_closure
        return self._recorder

    def _before_forward(self) -> None:
        self._guard("discovery", self._look_for_skipped_step)
        self._forward_begins()

    def _forward_begins(self) -> None:
        if self._actor is not None and self._recorder is not None:
            self._actor.forward_begins(self._recorder.subject, self._recorder.step, self._scaling)

    # Listener

    def backward_begins(self, roots: Sequence[Any], accumulates: bool) -> None:
        if accumulates:
            self._guard("discovery", self._backward_begins, roots)

    def _backward_begins(self, roots: Sequence[Any]) -> None:
        if self._recorder is None:
            self._discover()
            self._discovery.settle()
        if self._recorder is None:
            return
        if self._given is None and self._looks < LOOKS:
            self._looks += 1
            self._take_in_the_rest(roots)
        self._look_for_skipped_step()
        scaler = scaler_of(roots, self._scalers)
        self._scaling = scaler or self._scaling
        scale = scaler._scale if scaler is not None else None
        if self._actor is not None:
            self._actor.backward_begins(self._recorder.subject, self._recorder.step, roots, scale)
        self._recorder.on_backward_begin(roots, scale)

    def _take_in_the_rest(self, roots: Sequence[Any]) -> None:
        """Modules apart that have gradients, and that no optimizer led to: it may have been forgotten. One in
        evaluation mode is a measure, as of a perceptual loss."""
        assert self._recorder is not None
        known = {id(p) for p in self._recorder.subject.parameters}
        reached = list(leaves(roots))
        if known.issuperset(map(id, reached)):
            return
        modules = self._discovery.modules
        found = [module for module in owners(modules, reached) if module.training]
        # The hooks of this pass are set anew where something new is found, and then only.
        if not known.issuperset(id(p) for module in found for p in module.parameters()):
            self._recorder.watch(found, self._discovery.compiled, modules)

    def _look_for_skipped_step(self) -> None:
        """A scaler's bookkeeping is made anew by each update(): one since the last backward pass, and no
        optimizer step, means that the step was withheld."""
        scaler, recorder = self._scaling, self._recorder
        if scaler is None or recorder is None:
            return
        states = scaler._per_optimizer_states
        updated = self._scaler_states is not None and states is not self._scaler_states
        self._scaler_states = states
        if updated and recorder.backwards and not recorder.stepped:
            recorder.on_step_skipped()

    def backward_ends(self) -> None:
        if self._recorder is not None:
            self._recorder.on_backward_end(
                counts_as_step=not self._recorder.optimized and not self._optimizers
            )

    def clips(self, clip: Clip) -> float:
        recorder = self._recorder
        if recorder is not None:
            if self._actor is not None:
                limit = self._actor.clips(recorder.subject, recorder.step, clip)
                clip = clip._replace(max_norm=limit)
            recorder.on_clip(clip)
        return clip.max_norm

    def step_begins(self, optimizer: torch.optim.Optimizer, call: Call) -> Call | None:
        if self._recorder is None and self._actor is not None:
            # A closure is yet to call the model: what acts has to be there before it does.
            self._guard("discovery", self._discover)
        recorder, changed = self._recorder, None
        if recorder is None:
            return None
        if not recorder.knows(optimizer):
            self._guard("discovery", self._admit, optimizer)
        if recorder.knows(optimizer):
            recorder.before_step(optimizer)
            if self._actor is not None:
                changed = self._actor.step_begins(recorder.subject, recorder.step, optimizer, call)
            recorder.on_step_begin(optimizer)
        return changed

    def _admit(self, optimizer: torch.optim.Optimizer) -> None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if self._given is None:
            self._discover()
        elif self._recorder is not None and held & self._given:
            self._recorder.add_optimizer(optimizer)

    def step_ends(self, optimizer: torch.optim.Optimizer) -> None:
        if self._recorder is not None and self._recorder.knows(optimizer):
            if self._actor is not None:
                self._actor.step_taken(optimizer)
            self._recorder.on_step_end(optimizer)
            if self._actor is not None:
                self._actor.step_ends(optimizer)

    # Life

    def forked(self) -> None:
        """In a forked child: what the parent recorded is the parent's; the child begins anew."""
        if self._recorder is not None:
            self._recorder.abandon()
            self._recorder = None
        self._looks = 0

    def write_flight(self, because: str) -> None:
        if self._recorder is not None:
            self._recorder.write_flight(because)

    def end(self) -> None:
        """Gives all seams back and writes the last row."""
        self._guard("discovery", self._look_for_skipped_step)
        self._seams.remove()
        self._discovery.remove()
        self._optimizers.forget()
        self._scalers.forget()
        if self._actor is not None:
            self._actor.end()
        if self._recorder is not None:
            self._recorder.end()

    def _failed(self, probe: str, error: Exception) -> None:
        data = {"probe": probe, "error": f"{type(error).__name__}: {error}"}
        try:
            EventLog(self._run_dir).append(Event("recorder-error", time.time(), None, 0, data))
        except OSError as full:
            print(f"stabdiag: {probe}: {data['error']} ({full})", file=sys.stderr)


def start(run_dir: Path, cadence: Cadence, actor: Actor | None = None) -> Session:
    """Records this process from now to its end. Called when torch has just been imported."""
    session = Session(run_dir, cadence, actor=actor)
    os.register_at_fork(after_in_child=session.forked)
    atexit.register(_at_exit, session, run_dir)
    if cadence.keep_batches:  # all else is in a file already
        before_termination(partial(session.write_flight, "the process was told to end (SIGTERM)"))
    return session


def _at_exit(session: Session, run_dir: Path) -> None:
    error = getattr(sys, "last_value", None)
    if error is not None and session.steps:
        data = {"type": type(error).__name__, "message": str(error)[:2000]}
        EventLog(run_dir).append(Event("exception", time.time(), session.steps, 0, data))
        session.write_flight(f"the script ended with {type(error).__name__}")
    session.end()
