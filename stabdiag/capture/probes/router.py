"""How a mixture of experts uses its experts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from stabdiag.capture.graph_probe import GraphProbe
from stabdiag.capture.probe import probe
from stabdiag.capture.roots import source_of
from stabdiag.capture.router_calls import RouterCall, router_call
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.saved_tensors import Node
from stabdiag.capture.subject import Subject
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.routing import routing, routing_statistics

STATISTICS = ("load", "max_load", "min_load", "entropy", "nonfinite")


@probe
class RouterProbe(GraphProbe[RouterCall]):
    """Kind `router`: a site for the module in which the choice is made, `<module>[e3]` for each expert.

    load       share of the tokens' choices that fell on the expert; 1 / experts where all are used alike
    max_load   the largest of these, of the module
    min_load   and the smallest
    entropy    nats, of the scores of all experts, mean over tokens; ln(experts) where none is preferred.
               Not known where the choice is made among logits
    nonfinite  1 where the scores were not all finite

    Micro-batches and repeated calls add up.
    """

    id = "router"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._sites: list[Site] = []
        self._first: dict[str, int] = {}
        self._taken: dict[str, torch.Tensor] = {}

    def recognise(self, node: Node) -> RouterCall | None:
        return router_call(node)

    def found(self, name: str, module: nn.Module, what: RouterCall) -> None:
        counts = routing(what.chosen, what.experts, what.scores)
        before = self._taken.get(name)
        if before is not None and before.shape == counts.shape:
            counts += before.to(counts.device)
        self._taken[name] = counts
        if name not in self._first:
            order = self.subject.order.get(name, -1)
            site = Site("router", name, type(module).__name__, order=order, source=source_of(module))
            self._first[name] = len(self._sites)
            self._sites += [site, *(replace(site, name=f"{name}[e{i}]") for i in range(what.experts))]

    def harvest(self) -> Harvest | None:
        self.disarm()
        taken, self._taken = self._taken, {}
        return Harvest(taken, partial(self._finish, tuple(self._sites))) if taken else None

    def _finish(self, sites: tuple[Site, ...], arrays: Arrays, _scale: float) -> Measured:
        columns = {name: np.full(len(sites), np.nan, np.float32) for name in STATISTICS}
        for name, summed in arrays.items():
            load, entropy = routing_statistics(summed)
            at = self._first[name]
            columns["load"][at + 1 : at + 1 + len(load)] = load
            columns["max_load"][at], columns["min_load"][at] = load.max(), load.min()
            columns["entropy"][at] = entropy
            columns["nonfinite"][at] = not np.isfinite(summed).all()
        return Measured([Row("router", sites, columns)])
