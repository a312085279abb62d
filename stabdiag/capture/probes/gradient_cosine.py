"""Which way the gradient points, against that of the step before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import local, measurable
from stabdiag.core.tier import Tier
from stabdiag.stats.cosine import cosine, inner_products
from stabdiag.stats.sample import slabs

SAMPLE = 1024

Parts = Mapping[int, torch.Tensor]
"""Index of a parameter -> a flat float32 sample of its gradient, whose norm estimates that of the whole."""


@probe
class GradientCosineProbe(Probe):
    """Adds `run.grad_cosine`: the cosine of this step's gradient with that of the step before, over the
    parameters that had one in both. Near 1 the gradient is the same again, as with all data in one
    batch; near 0 it is the noise of the batches; below 0 the steps overshoot.

    It needs no state of the optimizer. Of tensors above 1,024 elements as many are looked at, in 64 slabs.
    A step of the standard tier leaves its gradient, and the next one, if it is recorded at all, compares.
    """

    id = "gradient-cosine"
    tier = Tier.FAST
    scalars = ("grad_cosine",)

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._keeps = False
        self._open = True
        self._before: Parts | None = None
        self._products: torch.Tensor | None = None

    def arm(self, tier: Tier) -> None:
        self._keeps = tier >= Tier.STANDARD
        self._open = True
        if tier < self.tier:
            self._before = None  # the next gradient that is seen is not of the next step

    def on_step_end(self, optimizer: torch.optim.Optimizer | None, indices: Sequence[int]) -> None:
        """Of several optimizers the first that steps counts. Neither clipping by the norm of all nor a
        gradient scaler changes a direction."""
        before = self._before
        if not self._open or not (self._keeps or before):
            return
        self._open = False
        parts = self._sample(indices)
        self._before = parts if self._keeps else None
        if before:
            both = [i for i, part in parts.items() if i in before and _alike(part, before[i])]
            if both:
                self._products = inner_products([parts[i] for i in both], [before[i] for i in both])

    def _sample(self, indices: Sequence[int]) -> Parts:
        found: dict[int, torch.Tensor] = {}
        for i in indices:
            gradient = self.subject.parameters[i].grad
            values = None if gradient is None else measurable(gradient)
            if values is not None:
                found[i] = slabs(values, SAMPLE)
        device = next((part.device for part in found.values()), None)
        found = {i: part for i, part in found.items() if part.device == device}
        scales = [
            (local(self.subject.parameters[i]).numel() / part.numel()) ** 0.5 for i, part in found.items()
        ]
        wide = [part.float() for part in found.values()]
        scaled = torch._foreach_mul(wide, scales) if wide else []
        return {i: part.reshape(-1) for i, part in zip(found, scaled, strict=True)}

    def harvest(self) -> Harvest | None:
        products, self._products = self._products, None
        return None if products is None else Harvest({"products": products}, _finish)


def _alike(part: torch.Tensor, other: torch.Tensor) -> bool:
    return part.shape == other.shape and part.device == other.device


def _finish(arrays: Arrays, _scale: float) -> Measured:
    return Measured(scalars={"grad_cosine": cosine(arrays["products"])})
