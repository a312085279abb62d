"""The places in torch from which training is observed, taken once and given back together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.actor import Call
from stabdiag.capture.backward import BackwardObserver
from stabdiag.capture.clipping import Clip, ClippingObserver

STEP_FILE = torch.optim.Optimizer.profile_hook_step.__code__.co_filename


class Listener(Protocol):
    def backward_begins(self, roots: Sequence[Any], accumulates: bool) -> None: ...
    def backward_ends(self) -> None: ...
    def clips(self, clip: Clip) -> float: ...
    def step_begins(self, optimizer: torch.optim.Optimizer, call: Call) -> Call | None: ...
    def step_ends(self, optimizer: torch.optim.Optimizer) -> None: ...


class Seams:
    """Tells a listener of backward passes, clipping and optimizer steps, in an unmodified script."""

    def __init__(self, listener: Listener) -> None:
        self.backward = BackwardObserver(listener.backward_begins, listener.backward_ends)
        self._clipping = ClippingObserver(listener.clips)
        self._handles: list[RemovableHandle] = [
            register_optimizer_step_pre_hook(partial(_before, listener)),
            register_optimizer_step_post_hook(partial(_after, listener)),
        ]

    def remove(self) -> None:
        self.backward.remove()
        self._clipping.remove()
        for handle in self._handles:
            handle.remove()


def _before(listener: Listener, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Call | None:
    """What it returns takes the place of the arguments that the step was called with."""
    return listener.step_begins(optimizer, (args, kwargs)) if _is_a_step(optimizer) else None


def _after(listener: Listener, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
    if _is_a_step(optimizer):
        listener.step_ends(optimizer)


def _is_a_step(optimizer: torch.optim.Optimizer) -> bool:
    return not torch.compiler.is_compiling() and not _inside_its_own_step(optimizer)


def _inside_its_own_step(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step of the optimizer is called by another one of it: an overridden `step` that calls its
    parent's. Told from the stack, as a step that failed gives no notice of its end."""
    steps, frame = 0, sys._getframe(3)
    while frame is not None and steps < 2:
        if frame.f_code.co_name == "wrapper" and frame.f_code.co_filename == STEP_FILE:
            steps += frame.f_locals.get("self") is optimizer
        frame = frame.f_back  # type: ignore[assignment]
    return steps > 1
