from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training


@fault(
    "shifted-data",
    signatures=("distribution-shift-or-resume",),
    causes=("distribution-shift", "out-of-distribution-batch"),
    fixes=("ramp-mixture", "add-warmup", "reshuffle-data", "lower-learning-rate"),
    follows=("loss-spike", "loss-divergence", "adam-stale-second-moment", "bad-batch"),
    needs=("tokens|vectors",),
    undoes=False,
)
def plant(training: Training, dose: float) -> Planted:
    """From some step on the data come from another world, at once: tokens or axes have changed their
    meaning."""
    at = spots.moment(training)
    most = 1 + max(int(training.parts.batches(i)[0].max()) for i in range(20))
    world = torch.Generator().manual_seed(training.seed)

    def change(index: int, batch: Batch) -> Batch:
        first = batch[0]
        if first.is_floating_point():
            return first[:, axes], *batch[1:]
        return renamed[first.clamp(max=most - 1)], *batch[1:]

    axes = torch.randperm(training.parts.batches(0)[0].shape[1], generator=world)
    renamed = torch.randperm(most, generator=world)
    spots.at_batches(training, lambda index: index >= at, change)
    return Planted(at, shows=15)
