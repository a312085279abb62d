"""Seeing inside modules that torch.compile runs, without a hook in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.hooks import before_forward
from stabdiag.capture.replay import refusal, undone
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import in_transform

Attach = Callable[[Mapping[str, nn.Module]], list[RemovableHandle]]
WHAT = "a forward pass that runs once more"


class Shadow:
    """Runs a compiled module once more, eagerly and without gradients, just before the compiled call.

    A hook inside a compiled module would be traced: it changes the graph, and with it how kernels are
    fused and what they round. So the module's own code runs on the same inputs, weights and random
    numbers, with the hooks of `attach` in it, and all that it did is undone. Its numbers are those of
    eager kernels, which agree with the compiled ones but for rounding. The first call of a step counts.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._handles: list[RemovableHandle] = []
        self._done: set[int] = set()
        self._refused: set[int] = set()
        self.attach: list[Attach] = []

    def arm(self) -> None:
        for module, wrapper in self._subject.wrapped:
            if id(module) not in self._refused:
                self._handles.append(before_forward(wrapper, partial(self._on_call, module), kwargs=True))

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._done.clear()

    def _on_call(
        self, module: nn.Module, _wrapper: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if torch.is_grad_enabled() and not in_transform() and id(module) not in self._done:
            self._done.add(id(module))
            self._subject.guard("shadow", self.run, module, partial(module, *args, **kwargs))

    def run(self, module: nn.Module, call: Callable[[], Any]) -> None:
        """`call` calls `module`, with the hooks of all who attach some."""
        because = refusal(module)
        if because is not None:
            self._refused.add(id(module))
            self._subject.event("coverage", what=WHAT, because=because)
            return
        inside = set(module.modules())
        known = {**self._subject.modules, **self._subject.compiled}
        named = {name: m for name, m in known.items() if m in inside}
        with undone(module), torch.no_grad():
            handles = [handle for attach in self.attach for handle in attach(named)]
            try:
                call()
            finally:
                for handle in handles:
                    handle.remove()
