"""One call of a module, kept so that it can be made again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from stabdiag.capture.rng import RandomState

DEPTH = 4
SIMPLE = (str, bytes, int, float, complex, bool, slice, torch.dtype, torch.device)


class Call:
    """`module(*args, **kwargs)` as it is about to be made: the inputs by reference, the containers that
    hold them as copies, the random number generators, autocast.

    Made in a hook before the forward pass. Holds the inputs in memory as long as it lives.
    """

    def __init__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.module = module
        self.unrepeatable: str | None = None
        self._tensors: list[tuple[torch.Tensor, int]] = []
        self._args = self._kept(args, DEPTH)
        self._kwargs = self._kept(dict(kwargs), DEPTH)
        self._rng = RandomState()
        devices = {tensor.device.type for tensor, _ in self._tensors} | {"cpu"}
        self.autocast = {
            device: torch.get_autocast_dtype(device)
            for device in devices
            if device in ("cpu", "cuda", "xpu") and torch.is_autocast_enabled(device)
        }

    def _kept(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, SIMPLE):
            return value
        if isinstance(value, torch.Tensor):
            if value.is_inference():
                self.unrepeatable = "an input is an inference tensor, of which changes are not counted"
            else:
                self._tensors.append((value, value._version))
            return value
        if depth and type(value) in (list, tuple, set):
            return type(value)(self._kept(item, depth - 1) for item in value)
        if depth and isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(self._kept(item, depth - 1) for item in value))
        if depth and type(value) is dict:
            return {key: self._kept(item, depth - 1) for key, item in value.items()}
        self.unrepeatable = f"an argument is a {type(value).__name__}, which another call may change"
        return value

    @property
    def refusal(self) -> str | None:
        """Why the call cannot be made again as it was; None where it can."""
        if any(tensor._version != version for tensor, version in self._tensors):
            return "an input was changed in place since the call"
        return self.unrepeatable

    @property
    def inputs_are_computed(self) -> bool:
        """Whether an input has a graph of its own: what is made of it depends on more than this module."""
        return any(tensor.grad_fn is not None for tensor, _ in self._tensors)

    def __call__(self, cast: torch.dtype | None = None) -> Any:
        """Makes the call again, inside `undone`: with the random numbers of the first one. `cast` turns
        floating inputs into that dtype, and autocast is off then."""
        self._rng.restore()
        for device in ("cpu", "cuda", "xpu"):
            if device != "cpu" and not getattr(torch, device).is_available():
                continue
            dtype = None if cast else self.autocast.get(device)
            torch.set_autocast_enabled(device, dtype is not None)
            if dtype is not None:
                torch.set_autocast_dtype(device, dtype)
        return self.module(*_detached(self._args, cast), **_detached(self._kwargs, cast))


def _detached(value: Any, cast: torch.dtype | None) -> Any:
    """Fresh containers of the same tensors, cut off from the graphs that made them."""
    if isinstance(value, torch.Tensor):
        narrow = cast is not None and value.is_floating_point() and value.dtype != cast
        return (value.detach().to(cast) if narrow else value.detach()).requires_grad_(
            value.requires_grad and value.is_floating_point()
        )
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_detached(item, cast) for item in value))
    if isinstance(value, list | tuple | set):
        return type(value)(_detached(item, cast) for item in value)
    if isinstance(value, dict):
        return {key: _detached(item, cast) for key, item in value.items()}
    return value
