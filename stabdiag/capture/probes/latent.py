"""What the latent variables of a variational autoencoder carry."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.hooks import on_forward
from stabdiag.capture.posteriors import posteriors, source
from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import in_transform, tensors_in
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.latent import STATISTICS, latent_statistics

UNNAMED = "latent"


@probe
class LatentProbe(Probe):
    """Kind `latent`, a site a module that makes the mean of a Gaussian posterior: `kl`, `kl_dim`, `active`
    and `max_log_variance` as `stats.latent` has them.

    A posterior is known by its Kullback-Leibler divergence from a standard normal in the loss, in closed
    form, of mean and log variance or of `torch.distributions`; one that is estimated from samples is not
    seen. Which module makes it is found out in the first step and in slow ones.
    """

    id = "latent"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._handles: list[RemovableHandle] = []
        self._made: list[tuple[Any, str]] = []
        self._names: list[str] = []
        self._taken: list[list[torch.Tensor]] = []
        self._looked = False

    def arm(self, tier: Tier) -> None:
        unnamed = not self._looked or (tier > self.tier and UNNAMED in self._names)
        if tier >= self.tier and unnamed:
            self._handles = [
                on_forward(m, partial(self._on_forward, name)) for name, m in self.subject.modules.items()
            ]

    def _on_forward(self, name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        if torch.is_grad_enabled() and not in_transform() and not self.subject.in_backward():
            self._made += [(t.grad_fn, name) for _, t in tensors_in(output) if t.grad_fn is not None]

    def on_backward_begin(self, roots: Sequence[torch.Tensor], scale: torch.Tensor | None) -> None:
        self._looked = True
        made, self._made = self._made, []
        found = posteriors([root.grad_fn for root in roots if root.grad_fn is not None])
        innermost = {id(node): name for node, name in reversed(made)}
        for place, posterior in enumerate(found):
            if place == len(self._names):
                self._names.append(UNNAMED)
                self._taken.append([])
            # The farthest: containers hand on what a layer inside them has made, or a part of it.
            names = [n for node in source(posterior.node) if (n := innermost.get(id(node)))]
            if names and self._names[place] == UNNAMED:
                self._names[place] = names[-1]
            self._taken[place].append(latent_statistics(posterior.mean, posterior.variance))

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._made.clear()

    def harvest(self) -> Harvest | None:
        tensors = {str(place): torch.stack(rows) for place, rows in enumerate(self._taken) if rows}
        self._taken = [[] for _ in self._names]
        return Harvest(tensors, partial(self._finish, tuple(self._names))) if tensors else None

    def _finish(self, names: tuple[str, ...], arrays: Arrays, _scale: float) -> Measured:
        block = np.full((len(STATISTICS), len(names)), np.nan, np.float32)
        sites = []
        for place, name in enumerate(names):
            numbered = f"{name}-{place + 1}" if names.count(name) > 1 else name
            sites.append(Site("latent", numbered, order=self.subject.order.get(name, -1)))
            if str(place) in arrays:
                rows = arrays[str(place)]
                block[:, place] = rows.mean(0)
                block[-1, place] = rows[:, -1].max()
        columns = dict(zip(STATISTICS, block, strict=True))
        measured = [str(place) in arrays for place in range(len(names))]
        columns["nonfinite"] = np.where(measured, ~np.isfinite(block[0]), np.nan).astype(np.float32)
        return Measured([Row("latent", sites, columns)])
