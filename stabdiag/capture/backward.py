"""The beginning and the end of each outermost backward pass, and the roots that it starts from."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import graph

from stabdiag.capture.patch import Patch
from stabdiag.capture.replay import replaying

Begin = Callable[[Sequence[torch.Tensor], bool], None]


class _AlwaysLogging:
    """Stands in for the logger of `torch.autograd.graph` and says that debug logging is on."""

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger

    def getEffectiveLevel(self) -> int:  # noqa: N802 - the name that torch calls
        return logging.DEBUG

    def __getattr__(self, name: str) -> Any:
        return getattr(self.logger, name)


class BackwardObserver:
    """Calls `begin(roots, accumulates)` before and `end()` after each outermost backward pass.

    `accumulates` is False for `autograd.grad`, which leaves `.grad` alone. Backward passes that run
    inside another one (reentrant checkpointing) are part of it, those of a replay are none. `active` tells
    whether one is under way.

    torch calls `_register_logging_hooks_on_whole_graph(roots)` and what it returns around the engine
    when the debug logging of autograd is on. Taking that place, rather than wrapping `backward`, leaves
    no frame of ours in the traceback of a failing backward pass, and serves `Tensor.backward`,
    `autograd.backward` and `autograd.grad` alike.
    """

    def __init__(self, begin: Begin, end: Callable[[], None]) -> None:
        if not hasattr(graph, "_register_logging_hooks_on_whole_graph") or not hasattr(graph, "log"):
            raise RuntimeError(f"torch {torch.__version__} has no place to observe backward passes from")
        self._begin = begin
        self._end = end
        self._depth = 0
        self._logger: logging.Logger = vars(graph)["log"]
        self._register = Patch(graph, "_register_logging_hooks_on_whole_graph", self._enter)
        self._log = Patch(graph, "log", _AlwaysLogging(self._logger))

    @property
    def active(self) -> bool:
        return self._depth > 0

    def _enter(self, roots: Sequence[Any]) -> Callable[[], None]:
        if replaying():
            return lambda: None
        wanted = self._logger.getEffectiveLevel() <= logging.DEBUG
        unregister = self._register.original(roots) if wanted else None
        if self._depth == 0:
            engine_arguments = sys._getframe(1).f_locals.get("kwargs", {})
            self._begin(roots, bool(engine_arguments.get("accumulate_grad", True)))
        self._depth += 1

        def leave() -> None:
            if unregister is not None:
                unregister()
            self._depth -= 1
            if self._depth == 0:
                self._end()

        return leave

    def remove(self) -> None:
        self._register.remove()
        self._log.remove()
