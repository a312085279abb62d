"""The range of what every module of a model gives, and of the gradients that it gets back, in one step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch


@dataclass
class Range:
    """Of one module and direction, all calls together; `low`, `high` and `rms` are of the finite values."""

    direction: str
    module: str
    low: float = float("inf")
    high: float = float("-inf")
    squares: float = 0.0
    finite: int = 0
    nonfinite: int = 0

    @property
    def rms(self) -> float:
        return (self.squares / self.finite) ** 0.5 if self.finite else float("nan")

    def add(self, tensor: torch.Tensor) -> None:
        values = tensor.detach()
        kept = values[torch.isfinite(values)].to(torch.float64)
        self.nonfinite += values.numel() - kept.numel()
        if kept.numel():
            self.low = min(self.low, float(kept.min()))
            self.high = max(self.high, float(kept.max()))
            self.squares += float(kept.square().sum())
            self.finite += kept.numel()


class Ranges:
    """`with Ranges(model) as ranges:` around a forward and a backward pass; then `ranges.rows`, in the order
    in which the modules gave their first outputs and got their first gradients."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.found: dict[tuple[str, str], Range] = {}

    def __enter__(self) -> Ranges:
        self.handles = [
            module.register_forward_hook(partial(self._forward, name or type(module).__name__))
            for name, module in self.model.named_modules()
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    @property
    def rows(self) -> list[Range]:
        return sorted(self.found.values(), key=lambda found: found.direction == "backward")

    def _forward(self, name: str, _module: torch.nn.Module, _args: Any, output: Any) -> None:
        for tensor in _tensors(output):
            self._add("forward", name, tensor)
            if tensor.requires_grad:
                tensor.register_hook(partial(self._add, "backward", name))  # type: ignore[no-untyped-call]

    def _add(self, direction: str, name: str, tensor: torch.Tensor) -> None:
        self.found.setdefault((direction, name), Range(direction, name)).add(tensor)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        yield from (tensor for item in value.values() for tensor in _tensors(item))
    elif isinstance(value, tuple | list):
        yield from (tensor for item in value for tensor in _tensors(item))
