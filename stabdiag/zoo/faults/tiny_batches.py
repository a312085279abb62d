from __future__ import annotations

import math

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training


@fault(
    "tiny-batches",
    signatures=("noise-dominated", "oscillating-plateau"),
    causes=("batch-too-small", "learning-rate-too-high"),
    fixes=("larger-batch", "lower-learning-rate"),
    follows=("loss-plateau", "loss-spike", "loss-divergence", "update-ratio-high"),
    without=("edges", "contrastive", "adversarial"),
    doses=(8.0, 1.0),
    found_from=math.inf,
)
def plant(training: Training, dose: float) -> Planted:
    """From some step on a batch holds one sample, at the learning rate of a full one."""
    at, size = spots.moment(training), int(dose)
    training.final = 1.0

    def cut(index: int, batch: Batch) -> Batch:
        return tuple(part[:size] for part in batch)

    spots.at_batches(training, lambda index: index >= at, cut)
    return Planted(at, shows=100)
