"""How outputs and their gradients are distributed."""

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
from stabdiag.capture.row import Arrays, Harvest, Measured, Row, under
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import in_transform, measurable, tensors_in
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.distribution import distribution_statistics
from stabdiag.stats.sample import strided

SAMPLE = 8192
KINDS = ("distribution", "distribution_grad")


@probe
class DistributionProbe(Probe):
    """Kinds `distribution` and `distribution_grad`, a site a module: of its first output, and of the
    gradient with respect to it.

    q001 q01 q50 q99 q999   quantiles
    kurtosis                3 of a normal distribution
    outliers                share beyond six standard deviations
    underflow_<format>      share of values other than zero that fp16, bf16, e4m3 or e5m2 would make zero
    overflow_<format>       share beyond the largest number of the format

    Of about 8,192 evenly spaced elements of the first call in the step. Gradients are those of the loss
    itself, without a gradient scaler's factor: what they would lose where nothing scales them.
    """

    id = "distribution"
    tier = Tier.SLOW

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._handles: list[RemovableHandle] = []
        self._index: dict[str, int] = {}
        self._taken: dict[tuple[str, int], torch.Tensor] = {}

    def arm(self, tier: Tier) -> None:
        if tier >= self.tier:
            self._handles += self.on_shadow(self.subject.modules)

    def on_shadow(self, modules: Mapping[str, nn.Module]) -> list[RemovableHandle]:
        return [on_forward(m, partial(self._on_forward, name)) for name, m in modules.items()]

    def _on_forward(self, name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        if (torch.is_grad_enabled() or replaying()) and not in_transform():
            self.subject.guard(self.id, self._on_output, name, output)

    def _on_output(self, name: str, output: Any) -> None:
        site = self._index.setdefault(name, len(self._index))
        if ("distribution", site) in self._taken:
            return
        for _, tensor in tensors_in(output):
            self._take("distribution", site, tensor)
            if tensor.requires_grad and not tensor.is_leaf:
                hook = partial(self.subject.guard, self.id, self._take, "distribution_grad", site)
                self._handles.append(tensor.register_hook(hook))  # type: ignore[no-untyped-call]
            return

    def _take(self, kind: str, site: int, tensor: torch.Tensor) -> None:
        values = measurable(tensor)
        if values is not None:
            self._taken.setdefault((kind, site), strided(values, SAMPLE).to(torch.float32, copy=True))

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def harvest(self) -> Harvest | None:
        taken, self._taken = self._taken, {}
        if not taken:
            return None
        tensors = {f"{kind}:{site}": sample for (kind, site), sample in taken.items()}
        return Harvest(tensors, partial(self._finish, tuple(self._index)))

    def _finish(self, names: tuple[str, ...], arrays: Arrays, scale: float) -> Measured:
        rows = []
        for kind in KINDS:
            samples = {int(site): sample for site, sample in under(f"{kind}:", arrays).items()}
            if not samples:
                continue
            factor = scale if kind == "distribution_grad" else 1.0
            columns: dict[str, Any] = {"nonfinite": np.full(len(names), np.nan, np.float32)}
            for site, sample in samples.items():
                columns["nonfinite"][site] = float(np.mean(~np.isfinite(sample)))
                for name, value in distribution_statistics(sample / factor).items():
                    columns.setdefault(name, np.full(len(names), np.nan, np.float32))[site] = value
            sites = [Site(kind, name, order=self.subject.order.get(name, -1)) for name in names]
            rows.append(Row(kind, sites, columns))
        return Measured(rows)
