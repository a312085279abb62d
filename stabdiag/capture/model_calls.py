"""What the modules of a model were given and what they returned, kept and given again to others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from stabdiag.capture.tensors import measurable, tensors_in

Outputs = dict[str, torch.Tensor]
PASSED = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)


class CannotCopy(Exception):
    """An argument that cannot be given twice."""


def outputs_of(value: Any) -> Outputs:
    """Path -> floating tensor of all that a module returned, quantised ones in numbers."""
    found = {}
    for path, tensor in tensors_in(value):
        plain = measurable(tensor.dequantize() if tensor.is_quantized else tensor)
        if plain is not None:
            found[path] = plain
    return found


def likeness(value: Any) -> Any:
    """Types and devices of the tensors in arguments, in the shape of the arguments."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, value.device)
    if isinstance(value, Mapping):
        return {key: likeness(item) for key, item in value.items()}
    return [likeness(item) for item in value] if isinstance(value, tuple | list) else None


def given_again(value: Any, like: Any) -> Any:
    """Arguments of their own, so that nothing that is done to them is done to `value`: with the types and on
    the devices of `like`. Tensors that are one stay one. CannotCopy where something cannot be copied."""
    return _copied(value, like, {})


def _copied(value: Any, like: Any, known: dict[int, Any]) -> Any:
    if isinstance(value, PASSED):
        return value
    if id(value) not in known:
        known[id(value)] = _copy(value, like, known)
    return known[id(value)]


def _copy(value: Any, like: Any, known: dict[int, Any]) -> Any:
    if isinstance(value, torch.Tensor):
        return _tensor(value, like)
    if type(value) is dict:
        return {key: _copied(item, _part(like, key), known) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = (_copied(item, _part(like, index), known) for index, item in enumerate(value))
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    try:
        return copy.deepcopy(value)
    except Exception as error:
        raise CannotCopy(f"it takes a {type(value).__name__}, which cannot be copied") from error


def _tensor(value: torch.Tensor, like: Any) -> torch.Tensor:
    own = value.detach().clone()
    if not (isinstance(like, tuple) and len(like) == 2):
        return own
    dtype, device = like
    cast = own.is_floating_point() and dtype.is_floating_point
    return own.to(device=device, dtype=dtype) if cast else own.to(device)


def _part(like: Any, key: Any) -> Any:
    if isinstance(like, dict):
        return like.get(key)
    return like[key] if isinstance(like, list) and isinstance(key, int) and key < len(like) else None


def called(model: Callable[..., Any], batch: Any) -> Any:
    """`model` of a batch: a mapping gives keyword arguments, a tuple positional ones, all else is one."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple) else model(batch)


def in_type_of(batch: Any, model: torch.nn.Module) -> Any:
    """`batch` where `model` is, its floating tensors in the type that all its floating parameters have."""
    parameters = [p for p in model.parameters() if p.is_floating_point()]
    types = {p.dtype for p in parameters}
    device = parameters[0].device if parameters else None
    return _moved(batch, types.pop() if len(types) == 1 else None, device)


def _moved(value: Any, dtype: torch.dtype | None, device: torch.device | None) -> Any:
    if isinstance(value, torch.Tensor):
        cast = dtype if value.is_floating_point() else None
        return value.detach().clone().to(device=device or value.device, dtype=cast or value.dtype)
    if isinstance(value, Mapping):
        return {key: _moved(item, dtype, device) for key, item in value.items()}
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(_moved(item, dtype, device) for item in value)
    return value


def names_of(modules: Iterable[tuple[str, torch.nn.Module]]) -> dict[int, str]:
    """id of a module -> its first name."""
    found: dict[int, str] = {}
    for name, module in modules:
        found.setdefault(id(module), name)
    return found
