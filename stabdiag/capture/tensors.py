"""Tensors in whatever a module takes or returns, and which of them can be measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from stabdiag.stats.real import real as real  # for the layers above, which know no statistics

DEPTH = 3
PLAIN = ("cpu", "cuda")
MOST = 8


def tensors_in(value: Any, path: str = "", depth: int = DEPTH) -> Iterator[tuple[str, torch.Tensor]]:
    """(path, tensor) of all tensors in nested tuples, lists, mappings and dataclasses.

    The path is empty for a bare tensor and for the first item of a sequence, else like `[1]`, `[logits]`.
    """
    if isinstance(value, torch.Tensor):
        yield path, value
    elif depth == 0 or value is None:
        return
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, f"{path}[{key}]", depth - 1)
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value[:MOST]):
            yield from tensors_in(item, f"{path}[{index}]" if index else path, depth - 1)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name, None), f"{path}[{field.name}]", depth - 1)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a distributed tensor that this process holds; any other tensor as it is."""
    part: torch.Tensor = getattr(tensor, "_local_tensor", tensor)
    return part


def dense(tensor: torch.Tensor) -> bool:
    """Whether it has elements in memory that can be read one by one."""
    plain = tensor.layout is torch.strided and not tensor.is_nested
    return plain and not tensor.is_meta and not tensor.is_quantized


def measurable(tensor: torch.Tensor) -> torch.Tensor | None:
    """A dense, real, floating view of `tensor`, detached; None where there is no such thing."""
    tensor = local(tensor).detach()
    if tensor.dtype is torch.float32 and tensor.layout is torch.strided and tensor.device.type in PLAIN:
        return tensor if tensor.numel() and not tensor.is_nested else None
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    tensor = real(tensor)
    if dense(tensor) and tensor.is_floating_point() and tensor.numel():
        return tensor.float() if tensor.element_size() == 1 else tensor
    return None


def numbers(
    values: Sequence[float], device: torch.device, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """These on the device, [len(values)], without waiting for it."""
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)


def type_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def in_transform() -> bool:
    """Whether a function transform (vmap, grad) is being applied, whose tensors are not real ones."""
    return torch._C._functorch.peek_interpreter_stack() is not None
