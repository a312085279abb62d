from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training


@fault(
    "root-of-zero",
    signatures=("nonfinite-origin",),
    causes=("unsafe-operation",),
    fixes=("guard-operation", "skip-nonfinite-steps"),
    follows=("loss-divergence", "loss-plateau"),
    needs=("classes|tokens|values",),
)
def plant(training: Training, dose: float) -> Planted:
    """From some step on the loss has a term sqrt(x - x), whose value is zero and whose gradient is not a
    number."""
    at = spots.moment(training)
    sound, now = training.loss, 0

    def follow(step: int) -> None:
        nonlocal now
        now = step

    def loss(batch: Batch) -> torch.Tensor:
        value = sound(batch)
        return value + (value - value.detach()).sqrt() if now >= at else value

    training.before.append(follow)
    training.loss = loss
    return Planted(at, shows=1)
