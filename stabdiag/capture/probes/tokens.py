"""Whether the tokens of a sequence can still be told apart."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.hooks import on_forward
from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.replay import replaying
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import in_transform, measurable, tensors_in
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.tokens import STATISTICS, sampled, token_statistics

AT_FIRST = 2
LEAST = 8
"""Tokens and channels below which a tensor of three dimensions is not taken for a sequence."""


@probe
class TokenProbe(Probe):
    """Kind `tokens`, a site a module whose first output is [batch, tokens, channels]: `cosine`, `spread` and
    `rank` as `stats.tokens` has them, of the first call in the step. The first two steps are measured, and
    slow ones.

    Where the model's input is a table of tokens and the output has its two dimensions swapped, tokens come
    first, as in torch's own transformer.
    """

    id = "tokens"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._handles: list[RemovableHandle] = []
        self._sites: dict[str, Site] = {}
        self._taken: dict[str, torch.Tensor] = {}
        self._table: tuple[int, ...] = ()
        self._measured = 0

    def on_call(
        self, prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        tables = (t for value in (*args, *kwargs.values()) for _, t in tensors_in(value) if t.dim() == 2)
        self._table = next((tuple(t.shape) for t in tables if not t.is_floating_point()), ())

    def arm(self, tier: Tier) -> None:
        if tier > self.tier or (tier == self.tier and self._measured < AT_FIRST):
            self._handles += self.on_shadow(self.subject.modules)

    def on_shadow(self, modules: Mapping[str, nn.Module]) -> list[RemovableHandle]:
        return [on_forward(m, partial(self._on_forward, name)) for name, m in modules.items()]

    def _on_forward(self, name: str, module: nn.Module, _args: Any, output: Any) -> None:
        if (torch.is_grad_enabled() or replaying()) and not in_transform():
            self.subject.guard(self.id, self._on_output, name, module, output)

    def _on_output(self, name: str, module: nn.Module, output: Any) -> None:
        first = next((tensor for _, tensor in tensors_in(output)), None)
        values = None if first is None or first.dim() != 3 else measurable(first)
        if values is None or name in self._taken:
            return
        if tuple(values.shape[:2]) == self._table[::-1] != self._table:
            values = values.transpose(0, 1)
        if min(values.shape[1:]) < LEAST:
            return
        with torch.autocast(values.device.type, enabled=False):
            self._taken[name] = token_statistics(sampled(values))
        order = self.subject.order.get(name, -1)
        self._sites[name] = Site("tokens", name, type(module).__name__, tuple(values.shape), order=order)

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def harvest(self) -> Harvest | None:
        taken, self._taken = self._taken, {}
        self._measured += 1
        return Harvest(taken, partial(self._finish, tuple(self._sites.values()))) if taken else None

    def _finish(self, sites: tuple[Site, ...], arrays: Arrays, _scale: float) -> Measured:
        block = np.full((len(STATISTICS), len(sites)), np.nan, np.float32)
        for position, site in enumerate(sites):
            if site.name in arrays:
                block[:, position] = arrays[site.name]
        columns = dict(zip(STATISTICS, block, strict=True))
        measured = [site.name in arrays for site in sites]
        columns["nonfinite"] = np.where(measured, ~np.isfinite(block[0]), np.nan).astype(np.float32)
        return Measured([Row("tokens", sites, columns)])
