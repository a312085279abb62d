"""Sigmoids and tanhs at the flat ends of their curve."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.graph_probe import GraphProbe
from stabdiag.capture.hooks import on_forward
from stabdiag.capture.probe import probe
from stabdiag.capture.roots import source_of
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.saved_tensors import Node, kind, saved
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import in_transform, measurable, tensors_in
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.saturation import STATISTICS, saturation

BOUNDS = {"Sigmoid": 0.0, "Tanh": -1.0}
"""Lower bound of each; the upper one is 1."""
MOST_CALLS = 16


class Squashed(NamedTuple):
    """The node of sequence number `first` put `result` between `low` and 1, of what the node `below` made."""

    first: int
    last: int
    result: torch.Tensor
    low: float
    below: Node


@probe
class SaturationProbe(GraphProbe[Squashed]):
    """Kind `saturation`: `share` and `units` as `stats.saturation` has them, of all sigmoids and tanhs, be
    they modules or functions. Its sites are the modules whose outputs go into these, whose weights are to
    blame where these are saturated; elsewhere that in which they are computed, `<module>[0]`,
    `<module>[1]`, … where it holds others. The mean over calls, of which the first 16 of a step count.
    Those inside torch's fused recurrent layers are not seen.
    """

    id = "saturation"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._sites: dict[str, Site] = {}
        self._taken: dict[str, list[torch.Tensor]] = {}
        self._numbers: Counter[str] = Counter()
        self._names: dict[tuple[str, int], str] = {}
        self._made: list[tuple[Node, str]] = []
        self._handles: list[RemovableHandle] = []

    def arm(self, tier: Tier) -> None:
        super().arm(tier)
        if tier >= self.tier and not self._names:
            self._handles = [
                on_forward(m, partial(self._note, name)) for name, m in self.subject.modules.items()
            ]

    def _note(self, name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        if torch.is_grad_enabled() and not in_transform():
            self._made += [(t.grad_fn, name) for _, t in tensors_in(output) if t.grad_fn is not None]

    def recognise(self, node: Node) -> Squashed | None:
        low = BOUNDS.get(kind(node))
        result = None if low is None else saved(node, "result")
        values = None if result is None else measurable(result)
        if low is None or values is None:
            return None
        return Squashed(node._sequence_nr(), node._sequence_nr(), values, low, node.next_functions[0][0])

    def found(self, name: str, module: nn.Module, what: Squashed) -> None:
        number = self._numbers[name]
        self._numbers[name] += 1
        if number >= MOST_CALLS:
            return
        if (name, number) not in self._names:
            self._names[name, number] = self._name(name, number, module, what)
        site = self._names[name, number]
        self._taken.setdefault(site, []).append(saturation(what.result, what.low, 1.0))
        if site not in self._sites:
            self._sites[site] = Site(
                "saturation",
                site,
                type(module).__name__,
                tuple(what.result.shape),
                order=self.subject.order.get(site, self.subject.order.get(name, -1)),
                source=source_of(module),
            )

    def _name(self, name: str, number: int, module: nn.Module, what: Squashed) -> str:
        makers = [maker for node, maker in self._made if node is what.below]
        if makers:
            return makers[0]  # the innermost returned first
        # What holds others may well compute several layers of its own.
        return f"{name}[{number}]" if next(module.children(), None) is not None else name

    def disarm(self) -> None:
        super().disarm()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._made.clear()

    def harvest(self) -> Harvest | None:
        self.disarm()
        self._numbers.clear()
        taken, self._taken = self._taken, {}
        tensors = {name: torch.stack(rows) for name, rows in taken.items()}
        return Harvest(tensors, partial(self._finish, tuple(self._sites.values()))) if tensors else None

    def _finish(self, sites: tuple[Site, ...], arrays: Arrays, _scale: float) -> Measured:
        block = np.full((len(STATISTICS), len(sites)), np.nan, np.float32)
        for position, site in enumerate(sites):
            if site.name in arrays:
                block[:, position] = arrays[site.name].mean(0)
        columns = dict(zip(STATISTICS, block, strict=True))
        # A NaN is neither here nor there on the curve; where it came from, outputs tell.
        columns["nonfinite"] = np.where(np.isnan(block[0]), np.nan, 0.0).astype(np.float32)
        return Measured([Row("saturation", sites, columns)])
