from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training

RAMP = 50
"""Steps over which it comes, so that the second moment can follow."""


@fault(
    "constant-gradient",
    signatures=("adam-correlated-update",),
    causes=("stale-second-moment", "learning-rate-too-high"),
    fixes=("lower-epsilon", "lower-learning-rate", "clip-updates"),
    follows=("update-ratio-high", "weight-norm-drift"),
    doses=(0.1, 10.0),
    found_from=10.0,
    optimizers=("averages",),
    by_harm=True,
    undoes=False,
)
def plant(training: Training, dose: float) -> Planted:
    """From some step on a constant is added, little by little, to the gradient of one matrix: all its
    updates go one way."""
    at = spots.moment(training)
    name, weight = spots.matrix(training, spots.block(training))
    push, now = torch.randn_like(weight), 0

    def follow(step: int) -> None:
        nonlocal now
        now = step

    def add(gradient: torch.Tensor) -> torch.Tensor:
        share = min(1.0, max(0, now - at) / RAMP)
        pushed: torch.Tensor = gradient + share * dose * gradient.norm() / push.norm() * push
        return pushed

    training.before.append(follow)
    weight.register_hook(add)  # type: ignore[no-untyped-call]
    return Planted(at, (name, spots.owner(name)), shows=100)
