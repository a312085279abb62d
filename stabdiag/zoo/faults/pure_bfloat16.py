from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training


@fault(
    "pure-bfloat16",
    signatures=("low-precision-loss",),
    causes=("low-precision-weights",),
    fixes=("fp32-master-weights", "raise-learning-rate"),
    follows=("update-ratio-low", "lr-starvation", "loss-plateau", "frozen-parameters"),
    doses=(1.0, 0.1, 0.01),
    found_from=0.01,
)
def plant(training: Training, dose: float) -> Planted:
    """The weights are kept in bfloat16 alone: most updates are less than its rounding; a lower rate is
    worse."""
    training.model.to(torch.bfloat16)
    training.lr *= dose

    def change(index: int, batch: Batch) -> Batch:
        return tuple(part.bfloat16() if part.is_floating_point() else part for part in batch)

    spots.at_batches(training, lambda index: True, change)
    return Planted(shows=training.steps)
