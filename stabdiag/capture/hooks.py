"""Hooks on modules that leave no trace in copies of the module."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch


class Hook:
    """A module hook that does nothing while torch.compile traces, and returns None always.

    A module that is copied or pickled while it is hooked takes a hook along that does nothing and needs
    no stabdiag to be loaded: the exit of a null context takes any arguments and returns None.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> None:
        if not torch.compiler.is_compiling():
            self.function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (contextlib.nullcontext(), "__exit__")
