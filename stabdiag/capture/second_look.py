"""A forward pass whose loss is not finite is looked at again, at once: the next step would be too late."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from stabdiag.capture.shadow import Shadow
from stabdiag.capture.tensors import dense

REST = 50


class SecondLook:
    """Remembers the last call of the model until its backward pass.

    Where that begins at a loss that is not finite, in a step whose outputs are not being recorded, the
    call is made once more with hooks in it: the weights are still those that failed, which after the
    optimizer's step they are not. It is for losses on the host: to ask an accelerator would be to wait
    for it. At most once in fifty steps.
    """

    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow
        self._call: _Call | None = None
        self._rest_until = 0

    def note(self, prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        self._call = _Call((prefix, module, args, kwargs), torch.get_rng_state(), autocast)

    def wanted(self, step: int, roots: Sequence[torch.Tensor]) -> bool:
        return step >= self._rest_until and any(map(_lost, roots))

    def run(self, step: int, missed: Callable[..., object]) -> None:
        """`missed` is told of the call as it was, as `Probe.on_call` is."""
        call, self._call = self._call, None
        self._rest_until = step + REST
        if call is not None:
            missed(*call.arguments)
            self._shadow.run(call.arguments[1], call.repeat)

    def forget(self) -> None:
        self._call = None


class _Call(NamedTuple):
    arguments: tuple[str, nn.Module, tuple[Any, ...], Mapping[str, Any]]
    rng: torch.Tensor
    autocast: torch.dtype | None

    def repeat(self) -> None:
        _, module, args, kwargs = self.arguments
        torch.set_rng_state(self.rng)
        with torch.autocast("cpu", self.autocast, enabled=self.autocast is not None):
            module(*args, **kwargs)


def _lost(root: torch.Tensor) -> bool:
    on_host = root.device.type == "cpu" and root.numel() == 1 and dense(root) and not root.is_complex()
    return on_host and not math.isfinite(root.item())
