"""What goes into the model: ranges of floating inputs, fingerprints of all, and how many samples."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.carried import CarriedInputs
from stabdiag.capture.hooks import on_forward
from stabdiag.capture.inputs import named_inputs
from stabdiag.capture.partials import LogHarvest, PartialLog
from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row, under
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import in_transform, measurable, type_name
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.fingerprint import BITS, fingerprint
from stabdiag.stats.moments import Moments


@probe
class BatchProbe(Probe):
    """Kind `batch`: what the modules are given that the script itself calls.

    An input is named as the module's `forward` names it, with the module's prefix where there is one.
    One that the model itself put out before, as a recurrent state, is told of by the event `carried`.
    Micro-batches merge; their fingerprints add up, so that their order does not matter.
    """

    id = "batch"
    tier = Tier.FAST

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._index: dict[str, int] = {}
        self._sites: list[Site] = []
        self._log = PartialLog(Moments())
        self._prints: list[tuple[int, torch.Tensor]] = []
        self._carried = CarriedInputs()
        self._handles: list[RemovableHandle] = []

    def arm(self, tier: Tier) -> None:
        if tier >= self.tier and self._carried.looking and not self._handles:
            self._handles = [
                on_forward(called, partial(self._on_output, prefix))
                for prefix, (_, called) in self.subject.entries.items()
            ]

    def _on_output(self, prefix: str, _module: nn.Module, _args: Any, output: Any) -> None:
        if torch.is_grad_enabled() and not in_transform() and not self.subject.in_backward():
            self.subject.guard(self.id, self._carried.put_out, prefix, output)

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._carried.end_step()

    def on_call(
        self, prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        for name, tensor in named_inputs(prefix, module, args, kwargs):
            self._add(prefix, name, tensor)

    def _add(self, prefix: str, name: str, tensor: torch.Tensor) -> None:
        site = self._index.setdefault(name, len(self._sites))
        if site == len(self._sites):
            self._sites.append(
                Site("batch", name, shape=tuple(tensor.shape), dtype=type_name(tensor), order=site)
            )
        if self._carried.given(prefix, name, tensor):
            self.subject.event("carried", input=name)
        self._prints.append((site, fingerprint(tensor)))
        values = measurable(tensor)
        if values is not None:
            self._log.add(site, values)

    def harvest(self) -> Harvest:
        self.disarm()  # what follows may be a step of which this probe hears no call
        ranges = self._log.harvest()
        tensors = {f"range:{device}": rows for device, rows in ranges.rows.items()}
        if self._prints:
            device = self._prints[0][1].device
            tensors["prints"] = torch.stack([p.to(device) for _, p in self._prints])
        owners = [site for site, _ in self._prints]
        finish = partial(self._finish, ranges, owners, tuple(self._sites))
        self._prints = []
        return Harvest(tensors, finish)

    def _finish(
        self,
        ranges: LogHarvest,
        owners: list[int],
        sites: tuple[Site, ...],
        arrays: Arrays,
        _scale: float,
    ) -> Measured:
        if not owners:
            return Measured()
        columns = ranges.columns(under("range:", arrays), len(sites))
        del columns["zeros"]
        sums = np.full(len(sites), np.nan, np.float64)
        for owner, value in zip(owners, arrays["prints"].tolist(), strict=True):
            sums[owner] = value if np.isnan(sums[owner]) else (sums[owner] + value) % 2**BITS
        columns["fingerprint"] = sums.astype(np.float32)
        return Measured([Row("batch", sites, columns)])
