"""Inputs that are no data: what a model is given back of its own outputs, as a recurrent state."""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from stabdiag.capture.tensors import dense, local, tensors_in

LOOKS = 20


class CarriedInputs:
    """Knows an input by its memory: a state that was detached lies where it was put out, and that memory is
    not free meanwhile. The outputs of the first `LOOKS` calls are remembered, each until the next of the same
    module."""

    def __init__(self) -> None:
        self._given: dict[str, list[Any]] = {}
        self._made: dict[str, list[Any]] = {}
        self._looks = LOOKS
        self._known: set[str] = set()

    @property
    def looking(self) -> bool:
        return self._looks > 0

    def given(self, prefix: str, name: str, tensor: torch.Tensor) -> bool:
        """Whether this input of the module of `prefix` is now known to be carried, and was not before."""
        if not self.looking and not self._made:
            return False
        own = _memory(tensor)
        self._given.setdefault(prefix, []).append(own)
        made = (memory for memories in self._made.values() for memory in memories)
        found = name not in self._known and any(own == memory and not memory.expired() for memory in made)
        if found:
            self._known.add(name)
        return found

    def put_out(self, prefix: str, output: Any) -> None:
        """At the end of the call to which the inputs were `given`; one that is handed on is not its own."""
        self._looks -= 1
        given = self._given.pop(prefix, [])
        if not self.looking:
            self._made.clear()
            return
        made = (_memory(tensor) for _, tensor in tensors_in(output) if dense(local(tensor)))
        self._made[prefix] = [memory for memory in made if memory not in given]

    def end_step(self) -> None:
        self._given.clear()


def _memory(tensor: torch.Tensor) -> Any:
    return StorageWeakRef(local(tensor).untyped_storage())  # type: ignore[no-untyped-call]
