"""The calls of modules that the script itself makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.hooks import before_forward
from stabdiag.capture.tensors import in_transform

OnCall = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any]], None]
OnEvaluation = Callable[[str, nn.Module], None]
OnExchange = Callable[[], None]


class Entrances:
    """Calls `on_call(prefix, module, args, kwargs)` before each call with gradients enabled, and
    `on_evaluation(prefix, module)` before each without; `on_exchange()` before processes wait for each other
    ahead of such a call."""

    def __init__(self, on_call: OnCall, on_evaluation: OnEvaluation, on_exchange: OnExchange) -> None:
        self._on_call = on_call
        self._on_evaluation = on_evaluation
        self._on_exchange = on_exchange
        self._handles: list[RemovableHandle] = []
        self._watched: tuple[dict[str, tuple[nn.Module, nn.Module]], list[nn.Module]] = {}, []

    def watch(
        self, entries: Mapping[str, tuple[nn.Module, nn.Module]], exchanging: Sequence[nn.Module]
    ) -> None:
        """Prefix -> the module that is meant, and the one that is called: itself or its wrapper; `exchanging`
        are wrappers that send buffers round before they call what they wrap. Replaces what was watched."""
        if (entries, exchanging) == self._watched:
            return
        self._watched = dict(entries), list(exchanging)
        for handle in self._handles:
            handle.remove()
        self._handles = [
            before_forward(called, partial(self._enter, prefix, module), kwargs=True)
            for prefix, (module, called) in entries.items()
        ]
        self._handles += [before_forward(module, self._wait, kwargs=False) for module in exchanging]

    def _wait(self, _wrapper: nn.Module, _args: tuple[Any, ...]) -> None:
        self._on_exchange()

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
