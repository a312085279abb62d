"""Calls the interventions that were asked for, and wraps them so that they cannot break training."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from stabdiag.capture.actor import Call
from stabdiag.capture.clipping import Clip
from stabdiag.capture.guard import Guard
from stabdiag.capture.placement import in_world
from stabdiag.capture.subject import Subject
from stabdiag.intervene.forward import Forward
from stabdiag.intervene.intervention import Intervention
from stabdiag.intervene.ledger import Ledger, Scene
from stabdiag.intervene.protection import Protection
from stabdiag.intervene.reduced import apart
from stabdiag.intervene.request import Acting
from stabdiag.intervene.scaling import unscale, withheld
from stabdiag.intervene.step import Step

MANY_EVALUATIONS = "evaluates its closure many times a step: none of its gradients is the one it steps by"


class Controller:
    """An `Actor`. An error in an intervention switches that one off, is an event, and goes no further."""

    def __init__(self, acting: Acting) -> None:
        self._asked: list[tuple[int, Intervention]] = [(r.start, r.made()) for r in acting.apply]
        if acting.guard:
            self._asked.insert(0, (0, Protection()))
        self._ledger = Ledger()
        self._guard = Guard(self._failed)
        self._subject: Subject | None = None
        self._number = 0
        self._open: weakref.WeakKeyDictionary[torch.optim.Optimizer, Step] = weakref.WeakKeyDictionary()
        self._losses: list[torch.Tensor] = []
        self._losses_of = -1
        """The step that they are of; -1 where an optimizer has stepped on them."""
        self._stop_asked = False

    # Told by the session

    def forward_begins(self, subject: Subject, number: int, scaler: Any) -> None:
        self._subject, self._number = subject, number
        for intervention in self._active():
            self._call(intervention, intervention.on_forward, self._forward(subject, scaler))

    def backward_begins(
        self, subject: Subject, number: int, roots: Sequence[Any], scale: torch.Tensor | None
    ) -> None:
        self._subject, self._number = subject, number
        self._guard("losses", self._note_losses, roots, scale)
        for intervention in self._active():
            self._call(intervention, intervention.on_backward, self._forward(subject, None), roots)

    def _forward(self, subject: Subject, scaler: Any) -> Forward:
        return Forward(subject, self._number, self._ledger, self._stop, scaler, self._in_hook)

    def _note_losses(self, roots: Sequence[Any], scale: torch.Tensor | None) -> None:
        if self._losses_of != self._number:
            self._losses.clear()
            self._losses_of = self._number
        for root in roots:
            if isinstance(root, torch.Tensor) and root.numel() == 1:
                loss = root.detach().float()
                self._losses.append(loss if scale is None else loss / scale.to(loss.device))

    def clips(self, subject: Subject, number: int, clip: Clip) -> float:
        if self._ledger.acting:  # an intervention clips
            return clip.max_norm
        for intervention in self._active():
            scene = Scene(subject, number, self._ledger, self._stop)
            limit: float | None = self._call(intervention, intervention.on_clip, scene, clip)
            clip = clip if limit is None else clip._replace(max_norm=limit)
        return clip.max_norm

    def step_begins(
        self, subject: Subject, number: int, optimizer: torch.optim.Optimizer, call: Call
    ) -> Call | None:
        self._subject, self._number = subject, number
        self._close(optimizer)  # of a step that an exception ended
        losses = [] if in_world() else self._losses
        step = Step(subject, number, self._ledger, self._stop, optimizer, losses)
        self._open[optimizer] = step
        for intervention in self._active():
            self._call(intervention, intervention.before_step, step)
        (self_, *args), kwargs = call
        closure = args[0] if args else kwargs.get("closure")
        if closure is None:
            self._on_gradients(step)
            return None

        def evaluate() -> Any:
            loss = closure()
            self._on_gradients(step)
            return loss

        return ((self_, evaluate, *args[1:]), kwargs) if args else (call[0], {**kwargs, "closure": evaluate})

    def _on_gradients(self, step: Step) -> None:
        self._losses_of = -1
        looking = [i for i in self._active() if type(i).on_gradients is not Intervention.on_gradients]
        if not looking or self._guard("scaling", withheld, step.optimizer):
            return
        if not isinstance(step.optimizer, torch.optim.LBFGS):
            self._guard("scaling", unscale, step.optimizer, step.parameters)
        for intervention in looking:
            if not step.skipped:
                self._call(intervention, self._look, intervention, step)

    def _look(self, intervention: Intervention, step: Step) -> None:
        because = apart(step.subject, step.optimizer) if intervention.decides else None
        if isinstance(step.optimizer, torch.optim.LBFGS):
            because = f"{type(step.optimizer).__name__} {MANY_EVALUATIONS}"
        if because is None:
            intervention.on_gradients(step)
        else:
            step.cannot(because)

    def step_taken(self, optimizer: torch.optim.Optimizer) -> None:
        step = self._open.get(optimizer)
        if step is not None and not step.skipped:
            for intervention in self._active():
                self._call(intervention, intervention.after_step, step)
        if step is not None:
            step.put_gradients_back()

    def step_ends(self, optimizer: torch.optim.Optimizer) -> None:
        self._close(optimizer)

    def _close(self, optimizer: torch.optim.Optimizer) -> None:
        step = self._open.pop(optimizer, None)
        if step is not None:
            step.put_gradients_back()
            step.put_settings_back()

    def end(self) -> None:
        """Puts everything back, and says how often each intervention acted."""
        for optimizer in list(self._open):
            self._close(optimizer)
        for _, intervention in self._asked:
            self._guard(intervention.id, intervention.end)
            if self._subject is not None:
                told = {"action": "ended", "counts": self._ledger.of(intervention.id)}
                self._subject.event("intervention", intervention=intervention.id, **told)

    # Calling interventions

    def _active(self) -> Iterator[Intervention]:
        return (intervention for start, intervention in self._asked if self._number >= start)

    def _call(self, intervention: Intervention, function: Callable[..., Any], *args: Any) -> Any:
        before, self._ledger.acting = self._ledger.acting, intervention.id
        result = self._guard(intervention.id, function, *args)
        self._ledger.acting = before
        return result

    def _in_hook(self, method: Any, *args: Any) -> Any:
        return self._call(method.__self__, method, *args)

    def _stop(self, because: str) -> None:
        """Asks the supervisor to end the target; once."""
        if not self._stop_asked and self._subject is not None:
            self._stop_asked = True
            self._subject.event("stop", because=because)

    def _failed(self, id: str, error: Exception) -> None:
        if self._subject is not None:
            told = f"{type(error).__name__}: {error}"
            self._subject.event("recorder-error", probe=f"intervention {id}", error=told)
