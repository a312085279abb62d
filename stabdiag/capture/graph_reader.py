"""Finds calls of interest in the graph that a forward pass leaves behind, and the modules that make them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.hooks import before_forward, on_forward
from stabdiag.capture.module_calls import ModuleCall, ModuleCalls, innermost
from stabdiag.capture.replay import replaying
from stabdiag.capture.saved_tensors import Node, nodes_since
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import in_transform, tensors_in


class Found(Protocol):
    """What was recognised in nodes of sequence numbers `first` to `last`."""

    @property
    def first(self) -> int: ...

    @property
    def last(self) -> int: ...


F = TypeVar("F", bound=Found)


class _Pass:
    """How far a forward pass has come."""

    def __init__(self) -> None:
        self.calls = ModuleCalls()
        self.reached: Any = None
        self.outermost: str | None = None


class GraphReader(Generic[F]):
    """Calls `found(name, module, what)` for all that `recognise` knows, with the innermost module around it.

    The graph of a module is read when the module returns, so that nothing is put in the way of what it
    calls, and the numbers are still in the cache. Evaluation leaves no graph. A checkpointed module leaves
    one that must not be read, and a readable one when it is computed once more, so that it counts once.

    When `learning` it looks at all modules, the outermost of which reads for those within; then only at
    those in which something was found, and their like: not all layers of a kind run at every step.
    """

    def __init__(
        self,
        subject: Subject,
        probe: str,
        recognise: Callable[[Node], F | None],
        found: Callable[[str, nn.Module, F], None],
    ) -> None:
        self._subject = subject
        self._probe = probe
        self._recognise = recognise
        self._found = found
        self._looked = False
        self._holders: set[str] = set()
        self._broken_off: set[str] = set()
        self._handles: list[RemovableHandle] = []
        self.learning = True

    def arm(self) -> None:
        self._handles += self._hooks(self._chosen(self._subject.modules), _Pass())

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.learning &= not self._looked
        self._looked = False

    def shadow(self, modules: Mapping[str, nn.Module]) -> list[RemovableHandle]:
        """Hooks on what runs once more without gradients: they are switched on for the graph's sake."""
        chosen = self._chosen(modules)
        for name in tuple(chosen):
            # A graph begins at parameters: a part that has none is read from around it.
            while name in modules and next(modules[name].parameters(), None) is None:
                name = name.rpartition(".")[0]
                chosen |= {name: modules[name]} if name in modules else {}
        return self._hooks(chosen, _Pass())

    def _chosen(self, modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        if self.learning:
            return dict(modules)
        types = {type(modules[name]) for name in self._holders if name in modules}
        parents = self._holders & self._broken_off
        return {
            name: module
            for name, module in modules.items()
            if type(module) in types or name.rpartition(".")[0] in parents
        }

    def _hooks(self, modules: Mapping[str, nn.Module], during: _Pass) -> list[RemovableHandle]:
        handles = []
        for name, module in modules.items():
            handles.append(before_forward(module, partial(self._before, name, during), kwargs=True))
            handles.append(on_forward(module, partial(self._after, name, during), always_call=True))
        return handles

    def _before(self, name: str, during: _Pass, _module: nn.Module, args: Any, kwargs: Any) -> None:
        if in_transform():
            return
        if replaying() and not torch.is_grad_enabled():
            during.outermost = name
            torch.set_grad_enabled(True)
        if torch.is_grad_enabled():
            self._subject.guard(self._probe, self._enter, name, during, (args, kwargs))

    def _after(self, name: str, during: _Pass, _module: nn.Module, _args: Any, output: Any) -> None:
        if torch.is_grad_enabled() and not in_transform():
            self._subject.guard(self._probe, self._leave, name, during, output)
            if during.outermost == name and replaying():
                during.outermost = None
                torch.set_grad_enabled(False)

    def _enter(self, name: str, during: _Pass, inputs: Any) -> None:
        during.calls.enter(name)
        during.reached = inputs if self._subject.in_backward() else None

    def _leave(self, name: str, during: _Pass, output: Any) -> None:
        if output is None and during.reached is not None:
            # A checkpoint breaks off when all is there that it needs: read what was last reached.
            self._broken_off.add(name)
            output = during.reached
        calls = during.calls.leave(name)
        if calls:
            during.reached = None
            self._read(calls, [tensor for _, tensor in tensors_in(output)])

    def _read(self, calls: list[ModuleCall], tensors: Iterable[torch.Tensor]) -> None:
        self._looked = True
        known = {**self._subject.modules, **self._subject.compiled}
        recognised = map(self._recognise, nodes_since(calls[-1].start, tensors))
        for what in sorted((w for w in recognised if w is not None), key=lambda w: w.first):
            name = innermost(calls, what.first, what.last)
            if name is not None:
                self._holders.add(name)
                self._found(name, known[name], what)
