"""The gradients of each of several optimizers: of the two sides of a game."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import local
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.real import real


@probe
class SideProbe(Probe):
    """Kind `side`, a site an optimizer, where there are several: called by the part of the model that it
    alone trains, or `Adam.0`, the first of them.

    loss       of the backward passes since another optimizer stepped, the mean over its own steps
    grad_norm  of the parameters that it holds, as it sees it, the mean over its steps

    The loss is unscaled only where no gradient scaler is used: for its course, not its level. An optimizer
    that steps on the gradients of another's loss has none of its own.
    """

    id = "side"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._losses: list[torch.Tensor] = []
        self._taken: dict[int, list[torch.Tensor]] = {}
        self._sites: dict[int, Site] = {}

    def on_backward_begin(self, roots: Sequence[torch.Tensor], scale: torch.Tensor | None) -> None:
        scalars = [r.detach() for r in roots if r.numel() == 1 and not r.is_complex()]
        for loss in scalars:
            value = loss.reshape(()).to(torch.float32)
            self._losses.append(value if scale is None else value / scale.to(value.device))

    def on_step_begin(self, optimizer: torch.optim.Optimizer, indices: Sequence[int]) -> None:
        if len(self.subject.optimizers) < 2:
            self._losses.clear()
            return
        parameters = [self.subject.parameters[i] for i in indices]
        gradients = [local(p.grad) for p in parameters if p.grad is not None and not p.grad.is_sparse]
        if not self._losses or not gradients:
            return
        index = self.subject.optimizers[optimizer]
        norms = torch._foreach_norm([real(g.detach()) for g in gradients], 2, dtype=torch.float32)
        norm = torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))
        loss = torch.stack([part.to(norm.device) for part in self._losses]).sum()
        self._taken.setdefault(index, []).append(torch.stack([loss, norm]))
        self._losses.clear()
        if index not in self._sites:
            name = f"{type(optimizer).__name__}.{index}"
            # What it trains says better which side of the game it is.
            parts = {self.subject.sites[i].name.partition(".")[0] for i in indices}
            if len(parts) == 1 and parts.isdisjoint(site.name for site in self._sites.values()):
                name = parts.pop()
            self._sites[index] = Site("side", name, type(optimizer).__name__, order=index)

    def harvest(self) -> Harvest | None:
        taken, self._taken = self._taken, {}
        self._losses.clear()  # of steps that are not recorded whole, some are not heard of
        tensors = {str(index): torch.stack(rows) for index, rows in taken.items()}
        return Harvest(tensors, partial(self._finish, dict(self._sites))) if tensors else None

    def _finish(self, sites: dict[int, Site], arrays: Arrays, _scale: float) -> Measured:
        order = sorted(sites)
        block = np.full((2, len(order)), np.nan, np.float32)
        for position, index in enumerate(order):
            if str(index) in arrays:
                block[:, position] = arrays[str(index)].mean(0)
        measured = [str(index) in arrays for index in order]
        lost = np.where(measured, ~np.isfinite(block).all(0), np.nan).astype(np.float32)
        columns = {"loss": block[0], "grad_norm": block[1], "nonfinite": lost}
        return Measured([Row("side", [sites[index] for index in order], columns)])
