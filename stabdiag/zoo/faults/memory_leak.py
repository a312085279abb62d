from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "memory-leak",
    signatures=("memory-growth",),
    causes=("memory-leak",),
    fixes=("release-memory",),
    doses=(0.01, 1.0, 3.0),
    found_from=1.0,
)
def plant(training: Training, dose: float) -> Planted:
    """From some step on each step keeps some megabytes that nobody needs."""
    at = spots.moment(training, 0.1, 0.3)
    kept: list[torch.Tensor] = []
    spots.always_from(training, at, lambda: kept.append(torch.ones(int(dose * 2**18))))
    return Planted(at, shows=150)
