from __future__ import annotations

import math

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "gradient-wakes",
    signatures=("adam-stale-second-moment",),
    causes=("stale-second-moment",),
    fixes=("lower-beta2", "clip-updates", "clip-gradients", "lower-learning-rate"),
    follows=("loss-spike", "update-ratio-high", "exploding-gradient"),
    doses=(3.0, 30.0, 300.0),
    found_from=math.inf,
    optimizers=("slow-moments",),
    leads=True,
    undoes=False,
)
def plant(training: Training, dose: float) -> Planted:
    """The gradient of one matrix is scaled down until some step, as where a branch is still nearly closed."""
    at = spots.moment(training)
    training.clip, training.final = 0.0, 1.0
    name, weight = spots.matrix(training, spots.block(training))
    now = 0

    def follow(step: int) -> None:
        nonlocal now
        now = step

    def dim(gradient: torch.Tensor) -> torch.Tensor:
        return gradient / dose if now < at else gradient

    training.before.append(follow)
    weight.register_hook(dim)  # type: ignore[no-untyped-call]
    return Planted(at, (name, spots.owner(name)), shows=10)
