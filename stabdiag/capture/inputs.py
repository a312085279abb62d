"""What a module is called with, by the names that its `forward` gives."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import nn

from stabdiag.capture.tensors import dense, tensors_in


@lru_cache(maxsize=64)
def _parameter_names(cls: Hashable) -> Sequence[str]:
    code = getattr(inspect.getattr_static(cls, "forward", None), "__code__", None)
    return code.co_varnames[1 : code.co_argcount] if code else ()


def named_inputs(
    prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of all dense tensors that have elements and a dimension, the module's prefix before the
    name. A 0-d tensor is a number that goes with the batch, as how many tokens count."""
    names = _parameter_names(cast("Hashable", type(module)))
    positional = ((names[i] if i < len(names) else f"[{i}]", value) for i, value in enumerate(args))
    for name, value in (*positional, *kwargs.items()):
        for path, tensor in tensors_in(value, depth=2):
            if tensor.dim() and tensor.numel() and dense(tensor):
                yield f"{prefix}{name}{path}", tensor
