"""The layers and heads in which attention was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import nn

from stabdiag.capture.attention_calls import AttentionCall
from stabdiag.capture.roots import source_of
from stabdiag.capture.tensors import type_name
from stabdiag.core.site import Site
from stabdiag.stats.attention import of_layers
from stabdiag.stats.family import Rows

MOST_HEADS = 64


class AttentionSites:
    """A site for each module, and one for each of its heads if it has several, but no more than 64.

    Heads are counted through over all layers, those without a site too.
    """

    def __init__(self) -> None:
        self.sites: list[Site] = []
        self._layers: dict[str, int] = {}
        self._layer_sites: list[int] = []
        self._heads: dict[str, list[int]] = {}
        self._layer_of: list[int] = []
        self._head_sites: dict[int, int] = {}

    @property
    def heads(self) -> int:
        return len(self._layer_of)

    def heads_of(self, name: str, module: nn.Module, call: AttentionCall, order: int) -> list[int]:
        """The numbers of the heads of this module."""
        count = call.shape[1]
        known = self._heads.setdefault(name, [])
        if len(known) >= count:
            return known[:count]
        if name not in self._layers:
            site = Site(
                "attention",
                name,
                module_type=type(module).__name__,
                shape=call.shape,
                dtype=type_name(call.of.query),
                order=order,
                source=source_of(module),
            )
            self._layers[name] = len(self._layers)
            self._layer_sites.append(len(self.sites))
            self.sites.append(site)
        described = self.sites[self._layer_sites[self._layers[name]]]
        for head in range(len(known), count):
            if 1 < count <= MOST_HEADS:
                self._head_sites[self.heads] = len(self.sites)
                self.sites.append(replace(described, name=f"{name}[h{head}]"))
            known.append(self.heads)
            self._layer_of.append(self._layers[name])
        return known

    def columns(self, heads: Mapping[str, Rows]) -> dict[str, Rows]:
        """Statistic -> [heads], to statistic -> [sites]."""
        layers = of_layers(heads, np.array(self._layer_of, np.int64), len(self._layers))
        numbers, places = (np.array(list(x), np.int64) for x in (self._head_sites, self._head_sites.values()))
        columns = {}
        for name, values in heads.items():
            column = columns[name] = np.full(len(self.sites), np.nan, np.float32)
            column[self._layer_sites] = layers[name]
            column[places] = values[numbers]
        return columns
