"""What a model was called with, kept as it was, and written without a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from stabdiag.capture.tensors import dense

PLAIN = (torch.Tensor, torch.nn.Parameter)
Call = dict[str, Any]


class KeptStep:
    """The calls of one step. `calls` describes each as JSON; the tensors in it are copies, on their devices.

    A value is {"tensor": name}, {"value": number, text, truth or null}, {"list": […]}, {"tuple": […]},
    {"dict": [[key, value], …]} with keys of text, or {"unknown": type} of what no file here can hold.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.tensors: dict[str, torch.Tensor] = {}

    def add(self, prefix: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.calls.append(
            {
                "module": prefix,
                "args": [self._described(value) for value in args],
                "kwargs": {name: self._described(value) for name, value in kwargs.items()},
            }
        )

    def _described(self, value: Any) -> dict[str, Any]:
        if type(value) in PLAIN and dense(value):
            name = f"tensor-{len(self.tensors)}"
            self.tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
            return {"tensor": name}
        if value is None or type(value) in (bool, int, float, str):
            return {"value": value}
        if type(value) in (list, tuple):
            return {type(value).__name__: [self._described(item) for item in value]}
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {"dict": [[key, self._described(item)] for key, item in value.items()]}
        return {"unknown": f"{type(value).__module__}.{type(value).__qualname__}"}

    def write(self, path: Path) -> None:
        """One safetensors file, whose metadata hold `calls`. Raises OSError."""
        from safetensors.torch import save_file

        temporary = path.with_suffix(".partial")
        save_file(self.tensors, temporary, {"calls": json.dumps(self.calls)})
        temporary.replace(path)
