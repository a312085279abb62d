"""The calls of modules that the script itself makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.hooks import before_forward
from stabdiag.capture.tensors import in_transform

OnCall = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any]], None]
OnEvaluation = Callable[[str, nn.Module], None]


class Entrances:
    """Calls `on_call(prefix, module, args, kwargs)` before each call with gradients enabled, and
    `on_evaluation(prefix, module)` before each without."""

    def __init__(self, on_call: OnCall, on_evaluation: OnEvaluation) -> None:
        self._on_call = on_call
        self._on_evaluation = on_evaluation
        self._handles: list[RemovableHandle] = []
        self._watched: dict[str, tuple[nn.Module, nn.Module]] = {}

    def watch(self, entries: Mapping[str, tuple[nn.Module, nn.Module]]) -> None:
        """Prefix -> the module that is meant, and the one that is called: itself or its wrapper. Replaces
        what was watched."""
        if entries == self._watched:
            return
        self._watched = dict(entries)
        for handle in self._handles:
            handle.remove()
        self._handles = [
            before_forward(called, partial(self._enter, prefix, module), kwargs=True)
            for prefix, (module, called) in entries.items()
        ]

    def _enter(
        self,
        prefix: str,
        module: nn.Module,
        _called: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if in_transform():
            return
        if torch.is_grad_enabled():
            self._on_call(prefix, module, args, kwargs)
        else:
            self._on_evaluation(prefix, module)
