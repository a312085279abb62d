"""The logits: the output that the loss's softmax is computed from."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.hooks import on_forward
from stabdiag.capture.log_softmax import log_softmaxes, source
from stabdiag.capture.placement import agreed
from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import in_transform, measurable, tensors_in
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.logits import STATISTICS, logit_statistics


@probe
class LogitsProbe(Probe):
    """Kind `logits`, a site a module whose output goes into the log-softmax of the loss.

    log_z    mean log of the partition function (nats)
    mean     mean logit
    max      largest logit
    entropy  mean entropy of the prediction (nats)

    Of up to 256 evenly spaced rows, with the classes as the module gives them: in the last dimension,
    or in the second where the loss takes images. The module is found once a backward pass of a recorded
    step has come by: its loss leads to a log-softmax, or to a log-sum-exp if there is none, and that to an
    output. Losses without either have no logits.
    """

    id = "logits"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._handles: list[RemovableHandle] = []
        self._seen: list[tuple[Any, str, weakref.ref[torch.Tensor]]] = []
        self._dims: dict[str, int] = {}
        self._sites: dict[str, Site] = {}
        self._taken: list[tuple[str, torch.Tensor]] = []
        self._searched = False

    def arm(self, tier: Tier) -> None:
        if tier >= self.tier and (self._dims or not self._searched):
            self._handles += self._hooked(self.subject.modules)

    def on_shadow(self, modules: Mapping[str, nn.Module]) -> list[RemovableHandle]:
        return []  # without a graph the logits cannot be told from other outputs

    def _hooked(self, modules: Mapping[str, nn.Module]) -> list[RemovableHandle]:
        wanted = {n: m for n, m in modules.items() if not self._dims or n in self._dims}
        return [on_forward(m, partial(self._on_forward, name)) for name, m in wanted.items()]

    def _on_forward(self, name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        if torch.is_grad_enabled() and not in_transform() and not self.subject.in_backward():
            self.subject.guard(self.id, self._note, name, output)

    def _note(self, name: str, output: Any) -> None:
        for _, tensor in tensors_in(output):
            if name in self._dims:
                self._measure(name, tensor)
                return
            if tensor.grad_fn is not None:
                self._seen.append((tensor.grad_fn, name, weakref.ref(tensor)))

    def _measure(self, name: str, tensor: torch.Tensor) -> None:
        whole = agreed(tensor)
        values = None if whole is None else measurable(whole)
        if values is not None and values.dim() > 1:
            self._taken.append((name, logit_statistics(values, self._dims[name])))

    def on_backward_begin(self, roots: Sequence[torch.Tensor], scale: torch.Tensor | None) -> None:
        seen, self._seen = self._seen, []
        if self._dims or not seen:
            return
        self._searched = True
        made = {id(node): (name, tensor) for node, name, tensor in reversed(seen)}  # the innermost made it
        for softmax in log_softmaxes([root.grad_fn for root in roots]):
            found = source(softmax.below, made)
            if found is None:
                continue
            name, reference = found
            self._dims[name] = (
                1 if softmax.dim == 1 and (t := reference()) is not None and t.dim() > 2 else -1
            )
            self._sites[name] = Site("logits", name, order=self.subject.order.get(name, -1))
            if (tensor := reference()) is not None:
                self._measure(name, tensor)

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._seen.clear()

    def harvest(self) -> Harvest | None:
        taken, self._taken = self._taken, []
        if not taken:
            return None
        rows = torch.stack([values.to(taken[0][1].device) for _, values in taken])
        return Harvest({"rows": rows}, partial(self._finish, [name for name, _ in taken]))

    def _finish(self, names: list[str], arrays: Arrays, _scale: float) -> Measured:
        block = np.full((len(STATISTICS), len(self._sites)), np.nan, np.float32)
        for position, name in enumerate(self._sites):
            mine = arrays["rows"][[own == name for own in names]]
            if len(mine):
                block[:, position] = mine.mean(0)
                block[STATISTICS.index("max"), position] = mine[:, STATISTICS.index("max")].max()
        columns = dict(zip(STATISTICS, block, strict=True))
        lost = ~np.isfinite(block[0])
        measured = [name in names for name in self._sites]
        columns["nonfinite"] = np.where(measured, lost, np.nan).astype(np.float32)
        return Measured([Row("logits", tuple(self._sites.values()), columns)])
