"""Sigmoids and tanhs at the flat ends of their curve."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from stabdiag.capture.graph_probe import GraphProbe
from stabdiag.capture.probe import probe
from stabdiag.capture.roots import source_of
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.saved_tensors import Node, kind, saved
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import measurable
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.saturation import STATISTICS, saturation

BOUNDS = {"Sigmoid": 0.0, "Tanh": -1.0}
"""Lower bound of each; the upper one is 1."""
MOST_CALLS = 16
MOST_SITES = 256


class Squashed(NamedTuple):
    """The node of sequence number `first` put `result` between `low` and 1."""

    first: int
    last: int
    result: torch.Tensor
    low: float


@probe
class SaturationProbe(GraphProbe[Squashed]):
    """Kind `saturation`, a site a module in which a sigmoid or a tanh is computed, whether by a module of
    its own or by a function: `share` and `units` as `stats.saturation` has them, the mean over calls, of
    which the first 16 of a step count. A module that holds others has a site for each that it computes,
    `<module>[0]`, `<module>[1]`, …, in their order. Those inside torch's fused recurrent layers are not seen.
    """

    id = "saturation"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._sites: dict[str, Site] = {}
        self._taken: dict[str, list[torch.Tensor]] = {}
        self._numbers: Counter[str] = Counter()

    def recognise(self, node: Node) -> Squashed | None:
        low = BOUNDS.get(kind(node))
        result = None if low is None else saved(node, "result")
        values = None if result is None else measurable(result)
        if low is None or values is None:
            return None
        return Squashed(node._sequence_nr(), node._sequence_nr(), values, low)

    def found(self, name: str, module: nn.Module, what: Squashed) -> None:
        if next(module.children(), None) is not None:
            # What holds others may well compute several layers of its own.
            name = f"{name}[{self._numbers[name]}]"
            self._numbers[name.rpartition("[")[0]] += 1
        taken = self._taken.setdefault(name, [])
        if len(taken) >= MOST_CALLS or len(self._taken) > MOST_SITES:
            return
        taken.append(saturation(what.result, what.low, 1.0))
        if name not in self._sites:
            shape, order = tuple(what.result.shape), self.subject.order.get(name, -1)
            self._sites[name] = Site(
                "saturation", name, type(module).__name__, shape, order=order, source=source_of(module)
            )

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
