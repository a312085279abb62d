from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "desynced-replica",
    signatures=("rank-desync",),
    causes=("replicas-not-synchronized", "hardware-corruption"),
    fixes=("synchronize-replicas",),
    doses=(1e-6, 1e-2),
    found_from=1e-6,
    without=("router", "adversarial"),
    world=2,
    leads=True,
)
def plant(training: Training, dose: float) -> Planted:
    """At some step rank 1 alone changes one matrix a little: from then on it trains another model."""
    at = spots.moment(training)
    name, weight = spots.matrix(training, spots.block(training))

    def change() -> None:
        if training.rank == 1:
            weight.data.add_(dose * torch.randn(weight.shape, generator=torch.Generator().manual_seed(at)))

    spots.once(training, at, change)
    return Planted(at, (name,), shows=15)
