"""A probe that reads what it measures off the graph of the forward pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Generic

from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.graph_reader import F, GraphReader
from stabdiag.capture.probe import Probe
from stabdiag.capture.saved_tensors import Node
from stabdiag.capture.subject import Subject
from stabdiag.core.tier import Tier


class GraphProbe(Probe, Generic[F]):
    """At each step of its tier, `found` is told of all that `recognise` knows. Where in the model that is,
    is looked for anew when the model has changed, and in steps of a higher tier."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._reader = GraphReader(subject, self.id, self.recognise, self.found)

    @abstractmethod
    def recognise(self, node: Node) -> F | None: ...

    @abstractmethod
    def found(self, name: str, module: nn.Module, what: F) -> None:
        """`what` was computed in the module of that name."""

    def on_change(self) -> None:
        self._reader.learning = True

    def arm(self, tier: Tier) -> None:
        if tier >= self.tier:
            self._reader.learning |= tier > self.tier
            self._reader.arm()

    def on_shadow(self, modules: Mapping[str, nn.Module]) -> list[RemovableHandle]:
        return self._reader.shadow(modules)

    def disarm(self) -> None:
        self._reader.disarm()
