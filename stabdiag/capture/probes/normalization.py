"""Whether normalization layers do in evaluation what they do in training, and normalize at all."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.hooks import on_forward
from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import in_transform, measurable, tensors_in
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.normalization import STATISTICS, batch_statistics, row_headroom, unevenness

OF_ROWS = ("LayerNorm", "RMSNorm")


@probe
class NormalizationProbe(Probe):
    """Kind `normalization`, a site a module of batch, layer or root-mean-square normalization.

    mismatch        between its output in training and what it would be in evaluation, in standard
                    deviations; of batch normalization in training mode
    variance_ratio  of the running statistics over that of the batch
    headroom        variance that it divides by over its eps: below 1 it does not normalize
    gain            largest of its gains over their root mean square, before the step: 1 of a fresh layer
    values          of a channel in the batch
    items           in the batch
    momentum        of the running statistics: the share that a batch has in them, 0 where they are the mean
                    of all

    Of the first call in the step.
    """

    id = "normalization"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._handles: list[RemovableHandle] = []
        self._layers: dict[str, nn.Module] = {}
        self._sites: dict[str, Site] = {}
        self._taken: dict[str, torch.Tensor] = {}
        self._sizes: dict[str, tuple[float, float, float]] = {}

    def on_change(self) -> None:
        self._layers = {name: m for name, m in self.subject.modules.items() if _eps(m) > 0}

    def arm(self, tier: Tier) -> None:
        if tier >= self.tier:
            self._handles += [
                on_forward(m, partial(self._on_forward, name)) for name, m in self._layers.items()
            ]

    def _on_forward(self, name: str, module: nn.Module, args: Any, _output: Any) -> None:
        if torch.is_grad_enabled() and not in_transform() and not self.subject.in_backward():
            self.subject.guard(self.id, self._measure, name, module, args)

    def _measure(self, name: str, module: nn.Module, args: Any) -> None:
        first = next((tensor for _, tensor in tensors_in(args)), None)
        values = None if first is None or first.dim() < 2 else measurable(first)
        if values is None or name in self._taken:
            return
        if isinstance(module, _BatchNorm):
            running = (module.running_mean, module.running_var) if module.training else (None, None)
            self._taken[name] = batch_statistics(values, *running, module.eps)
            items = float(values.shape[0])
            self._sizes[name] = values.numel() / values.shape[1], items, float(module.momentum or 0.0)
        else:
            shape = getattr(module, "normalized_shape", None)
            dims = len(shape) if isinstance(shape, tuple) else 1
            centred = "RMS" not in type(module).__name__
            headroom = row_headroom(values, dims, _eps(module), centred=centred)
            nothing = headroom.new_full((), float("nan"))
            self._taken[name] = torch.stack([nothing, nothing, headroom])
        gain = getattr(module, "weight", None)
        known = measurable(gain) if isinstance(gain, torch.Tensor) else None
        own = self._taken[name].new_full((), float("nan")) if known is None else unevenness(known)
        self._taken[name] = torch.cat([self._taken[name], own.to(self._taken[name].device)[None]])
        if name not in self._sites:
            order = self.subject.order.get(name, -1)
            self._sites[name] = Site("normalization", name, type(module).__name__, order=order)

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def harvest(self) -> Harvest | None:
        taken, self._taken = self._taken, {}
        sizes, self._sizes = self._sizes, {}
        if not taken:
            return None
        return Harvest(taken, partial(self._finish, tuple(self._sites.values()), sizes))

    def _finish(
        self,
        sites: tuple[Site, ...],
        sizes: dict[str, tuple[float, float, float]],
        arrays: Arrays,
        _scale: float,
    ) -> Measured:
        block = np.full((len(STATISTICS) + 4, len(sites)), np.nan, np.float32)
        for position, site in enumerate(sites):
            if site.name in arrays:
                block[:-3, position] = arrays[site.name]
                block[-3:, position] = sizes.get(site.name, np.nan)
        columns = dict(zip((*STATISTICS, "gain", "values", "items", "momentum"), block, strict=True))
        measured = [site.name in arrays for site in sites]
        lost = ~np.isfinite(columns["headroom"])
        columns["nonfinite"] = np.where(measured, lost, np.nan).astype(np.float32)
        return Measured([Row("normalization", sites, columns)])


def _eps(module: nn.Module) -> float:
    """What a normalization adds to the variance, under any of its usual names; 0 of other modules, and
    where it is not known."""
    if not isinstance(module, _BatchNorm) and not any(word in type(module).__name__ for word in OF_ROWS):
        return 0.0
    names = ("eps", "epsilon", "variance_epsilon")
    found = next((value for name in names if (value := getattr(module, name, None)) is not None), None)
    if found is None and isinstance(module, nn.RMSNorm):
        return float(torch.finfo(torch.float32).eps)
    return float(found) if isinstance(found, float) else 0.0
