"""Hooks on modules that leave no trace in copies of the module, nor in what is saved of it."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


class Hook:
    """A module hook that does nothing while torch.compile traces, and returns None always.

    It is left out when it gets fewer than `arguments`: torch still calls a hook that another one of the same
    call has removed, but has forgotten then that it takes keyword arguments.

    It is copied and pickled only where it stands among hooks of the script's own, and then as a hook that
    does nothing and needs no stabdiag to be loaded: the exit of a null context, which takes any arguments.
    """

    __slots__ = ("arguments", "function")

    def __init__(self, function: Callable[..., None], arguments: int = 0) -> None:
        self.function = function
        self.arguments = arguments

    def __call__(self, *args: Any) -> None:
        if not torch.compiler.is_compiling() and len(args) >= self.arguments:
            self.function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (contextlib.nullcontext(), "__exit__")


class _Hooks(OrderedDict[int, Any]):
    """A module's table of hooks. Copied or pickled, it is a plain one without those of `ours`: what a
    script saves has the same bytes as without them, and loads under `weights_only` as before."""

    def __init__(self) -> None:
        super().__init__()
        self.ours: set[int] = set()

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        return OrderedDict, (), None, None, iter([kv for kv in self.items() if kv[0] not in self.ours])

    def claim(self, key: int) -> None:
        self.ours.intersection_update(self)  # those that were removed meanwhile
        self.ours.add(key)


def on_forward(
    module: nn.Module, function: Callable[[nn.Module, Any, Any], None], *, always_call: bool = False
) -> RemovableHandle:
    """Calls `function(module, args, output)` after each forward pass; with `always_call` also after one that
    an exception ended, with None for the output."""
    return _claimed(
        module,
        "_forward_hooks",
        lambda: module.register_forward_hook(Hook(function, 3), always_call=always_call),
    )


def before_forward(module: nn.Module, function: Callable[..., None], *, kwargs: bool) -> RemovableHandle:
    """Calls `function(module, args)`, or `function(module, args, kwargs)`, before each forward pass."""
    return _claimed(
        module,
        "_forward_pre_hooks",
        lambda: module.register_forward_pre_hook(Hook(function, 3 if kwargs else 2), with_kwargs=kwargs),
    )


def _claimed(module: nn.Module, table: str, register: Callable[[], RemovableHandle]) -> RemovableHandle:
    tables = [
        name for name in (table, f"{table}_with_kwargs", f"{table}_always_called") if name in vars(module)
    ]
    for name in tables:
        # A table with hooks of the script's stays: their handles hold on to that very object.
        if not module.__dict__[name] and type(module.__dict__[name]) is OrderedDict:
            module.__dict__[name] = _Hooks()
    handle = register()
    for name in tables:
        if isinstance(module.__dict__[name], _Hooks):
            module.__dict__[name].claim(handle.id)
    return handle
