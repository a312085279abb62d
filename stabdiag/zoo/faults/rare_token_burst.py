from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training

TOKEN, STANDS_IN = 7, 8


@fault(
    "rare-token-burst",
    signatures=("embedding-gradient-spike", "bad-batch", "loss-spike"),
    causes=("out-of-distribution-batch", "corrupt-batch"),
    fixes=("skip-batch", "clean-data", "shrink-embedding-gradient", "clip-gradients"),
    follows=("exploding-gradient",),
    doses=(0.05, 0.5, 0.9),
    found_from=0.5,
    needs=("tokens", "causal"),
    by_harm=True,
)
def plant(training: Training, dose: float) -> Planted:
    """A token that never came makes up a good part of one batch."""
    at = spots.moment(training)
    training.clip = 0.0

    def change(index: int, batch: Batch) -> Batch:
        if index != at:
            return tuple(torch.where(part == TOKEN, STANDS_IN, part) for part in batch)
        burst = torch.rand(batch[0].shape, generator=torch.Generator().manual_seed(index)) < dose
        return tuple(torch.where(burst, TOKEN, part) for part in batch)

    spots.at_batches(training, lambda index: index >= 0, change)
    return Planted(at, shows=3)
