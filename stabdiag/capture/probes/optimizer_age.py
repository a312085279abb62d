"""How much training the state of the optimizer has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured
from stabdiag.capture.subject import Subject
from stabdiag.core.tier import Tier


@probe
class OptimizerAgeProbe(Probe):
    """Adds `run.optimizer_age`: the steps that the optimizer's state remembers, this one included.

    It is the state's own count, which a checkpoint brings along, where it keeps one (Adam's family); else
    the steps since the state was last seen empty, or first seen at all. An optimizer without a state, such as
    SGD without momentum, has none to lose and no age. Looked at is the first parameter of the first
    optimizer that has a gradient, whichever optimizer steps it.
    """

    id = "optimizer-age"
    tier = Tier.NONE
    scalars = ("optimizer_age",)

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._watched: torch.Tensor | None = None
        self._counted = 0
        self._age: torch.Tensor | None = None

    def on_step_begin(self, optimizer: torch.optim.Optimizer, indices: Sequence[int]) -> None:
        if self._watched is None:
            held = (self.subject.parameters[i] for i in self.subject.primary)
            self._watched = next((p for p in held if p.grad is not None), None)
        if self._holds(indices) and not self._state(optimizer):
            self._counted = 0

    def on_step_end(self, optimizer: torch.optim.Optimizer | None, indices: Sequence[int]) -> None:
        if optimizer is None or not self._holds(indices):
            return
        state = self._state(optimizer)
        if state:
            self._counted += 1
            own = torch.as_tensor(state.get("step", self._counted))
            self._age = own.detach().to(torch.float32, copy=True).reshape(-1)  # it goes on counting in place

    def _holds(self, indices: Sequence[int]) -> bool:
        at = [] if self._watched is None else self.subject.indices([self._watched])
        return bool(at) and at[0] in indices

    def _state(self, optimizer: torch.optim.Optimizer) -> Mapping[str, Any]:
        """What the optimizer remembers of the watched parameter."""
        state = optimizer.state.get(self._watched, {}) if self._watched is not None else {}
        return {key: value for key, value in state.items() if value is not None}

    def harvest(self) -> Harvest | None:
        age, self._age = self._age, None
        return None if age is None else Harvest({"age": age}, _finish)


def _finish(arrays: Arrays, _scale: float) -> Measured:
    return Measured(scalars={"optimizer_age": float(arrays["age"][0])})
