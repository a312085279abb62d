"""A session that begins where models and optimizers are there already: a notebook, a test, a callback."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from stabdiag.capture.leaves import leaves
from stabdiag.capture.session import Session
from stabdiag.capture.wrapping import own_groups


class Adopting(Session):
    """Takes in all modules that are alive. Of the optimizers that are, it takes one when something of its
    parameters is about to be trained: others may be left from earlier work, and never step again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scalers.adopt()
        self._earlier: list[weakref.ref[torch.optim.Optimizer]] = []
        for candidate in gc.get_objects():
            if issubclass(type(candidate), nn.Module):
                self._discovery._note(candidate)
            elif issubclass(type(candidate), torch.optim.Optimizer) and own_groups(candidate):
                self._earlier.append(weakref.ref(candidate))
        for _, wrapper in self._discovery.compiled:
            if wrapper is not None:
                self._discovery._on_compiled(wrapper)

    def _at_first_call(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._take(module.parameters())
        super()._at_first_call(module, args)

    def _backward_begins(self, roots: Sequence[Any]) -> None:
        if self._recorder is None:
            self._take(leaves(roots))
        super()._backward_begins(roots)

    def _admit(self, optimizer: torch.optim.Optimizer) -> None:
        self._take(p for group in optimizer.param_groups for p in group["params"])
        super()._admit(optimizer)

    def _take(self, parameters: Iterable[Any]) -> None:
        """The earlier optimizers that hold any of these."""
        if not self._earlier:
            return
        trained = {id(p) for p in parameters}
        for reference in tuple(self._earlier):
            optimizer = reference()
            if optimizer is None:
                self._earlier.remove(reference)
            elif any(id(p) in trained for group in optimizer.param_groups for p in group["params"]):
                self._earlier.remove(reference)
                living = self._optimizers._living
                living.append(weakref.ref(optimizer, living.remove))
