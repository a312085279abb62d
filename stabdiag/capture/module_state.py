"""All that a forward pass may change in a module, set aside and put back."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import ExitStack
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

ROOM = 64 * 2**20
CODE = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType)
PLAIN = (str, bytes, int, float, complex, bool, *CODE)
GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)


class ModuleState:
    """Attributes of a module and of all below it, as they are when `set_aside` is called: what they are,
    the elements of their tensors, and what containers and objects among them hold, one level down.
    Parameters are noted by `requires_grad` and `.grad` alone: their elements are model-sized.

    `unrestorable` says what stands in the way, if anything does.
    """

    def __init__(self, module: nn.Module) -> None:
        self.unrestorable: str | None = None
        self.modules: list[nn.Module] = []
        self._seen: set[int] = set()
        self._tensors: list[torch.Tensor] = []
        self._parameters: list[nn.Parameter] = []
        self._mappings: list[MutableMapping[Any, Any]] = []
        self._sequences: list[Any] = []
        self._generators: list[Any] = []
        self._undo = ExitStack()
        self._note(module, 2)
        held = sum(tensor.nbytes for tensor in self._tensors)
        if held > max(ROOM, sum(p.nbytes for p in self._parameters)):
            self.unrestorable = f"its modules hold {held / 2**20:.0f} MiB besides parameters"

    def _note(self, value: Any, depth: int) -> None:
        if value is None or isinstance(value, PLAIN) or id(value) in self._seen:
            return
        self._seen.add(id(value))
        if isinstance(value, torch.Tensor):
            self._note_tensor(value)
        elif isinstance(value, nn.Module):
            self.modules.append(value)
            self._note_mapping(vars(value), 2)
        elif isinstance(value, GENERATORS):
            self._generators.append(value)
        elif isinstance(value, dict):
            self._note_mapping(value, depth - 1)
        elif isinstance(value, list | set | deque | tuple):
            if not isinstance(value, tuple):
                self._sequences.append(value)
            self._note_items(value, depth - 1)
        elif isinstance(value, Iterator):
            self.unrestorable = f"a module holds a {type(value).__name__}, which cannot be wound back"
        elif depth > 1 and isinstance(own := getattr(value, "__dict__", None), dict):
            self._note_mapping(own, 0)

    def _note_tensor(self, value: torch.Tensor) -> None:
        if isinstance(value, nn.Parameter):
            self._parameters.append(value)
        elif value.grad_fn is None:  # else an activation, which the script's own graph guards
            self._tensors.append(value)

    def _note_mapping(self, mapping: MutableMapping[Any, Any], depth: int) -> None:
        self._mappings.append(mapping)
        self._note_items(mapping.values(), depth)

    def _note_items(self, items: Any, depth: int) -> None:
        for item in tuple(items):
            if depth > 0 or isinstance(item, torch.Tensor | nn.Module):
                self._note(item, depth)

    def set_aside(self) -> None:
        """From here on, `restore` knows the way back."""
        for tensor in self._tensors:  # the script's graph may have saved it, and looks at its version
            self._undo.enter_context(torch.autograd._unsafe_preserve_version_counter(tensor))  # type: ignore[attr-defined]
        self._undo.callback(_put_back_mappings, [(m, list(m.items())) for m in self._mappings])
        self._undo.callback(_put_back_sequences, [(s, list(s)) for s in self._sequences])
        self._undo.callback(_put_back_generators, [(g, _generator_state(g)) for g in self._generators])
        self._undo.callback(_put_back_tensors, [(t, t.data, t.data.clone(), t.grad) for t in self._tensors])
        self._undo.callback(_put_back_parameters, [(p, p.grad, p.requires_grad) for p in self._parameters])
        for parameter in self._parameters:
            parameter.grad = None  # what is added to it meanwhile is added to another tensor

    def restore(self) -> None:
        """Puts everything back; an error with one kind of things is raised when the others are done."""
        self._undo.close()

    def replace(self, tensors: Mapping[int, torch.Tensor]) -> None:
        """Puts `tensors[id(old)]` in the place of `old` wherever the modules hold it, until `restore`."""
        for mapping in self._mappings:
            for key, value in tuple(mapping.items()):
                if id(value) in tensors:
                    mapping[key] = tensors[id(value)]
        for sequence in self._sequences:
            if isinstance(sequence, list):
                sequence[:] = [tensors.get(id(item), item) for item in sequence]


def _put_back_mappings(kept: list[tuple[MutableMapping[Any, Any], list[tuple[Any, Any]]]]) -> None:
    for mapping, before in kept:
        old = dict(before)
        for key in [key for key in mapping if key not in old]:
            del mapping[key]
        for key, value in before:
            if key not in mapping or mapping[key] is not value:
                mapping[key] = value
        if list(mapping) != list(old):
            mapping.clear()
            mapping.update(before)


def _put_back_sequences(kept: list[tuple[Any, list[Any]]]) -> None:
    for sequence, before in kept:
        if isinstance(sequence, set):
            # not emptied: what stays in its slot is iterated over in the order that the script has seen
            sequence.difference_update(sequence.difference(before))
            sequence.update(before)
        elif len(sequence) != len(before) or any(a is not b for a, b in zip(sequence, before, strict=True)):
            sequence.clear()
            sequence.extend(before)


def _generator_state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.getstate() if isinstance(generator, random.Random) else _bits(generator).state


def _put_back_generators(kept: list[tuple[Any, Any]]) -> None:
    for generator, state in kept:
        if isinstance(generator, torch.Generator):
            generator.set_state(state)
        elif isinstance(generator, random.Random):
            generator.setstate(state)
        else:
            _bits(generator).state = state


def _bits(generator: Any) -> Any:
    return generator.bit_generator if hasattr(generator, "bit_generator") else generator._bit_generator


def _put_back_tensors(
    kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]],
) -> None:
    for tensor, memory, elements, gradient in kept:
        memory.copy_(elements)
        if tensor.data_ptr() != memory.data_ptr() or tensor.shape != memory.shape:
            tensor.data = memory
        tensor.grad = gradient


def _put_back_parameters(kept: list[tuple[nn.Parameter, torch.Tensor | None, bool]]) -> None:
    for parameter, gradient, trained in kept:
        parameter.grad = gradient
        parameter.requires_grad_(trained)
