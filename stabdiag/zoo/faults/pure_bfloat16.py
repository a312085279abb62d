from __future__ import annotations

import torch

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Batches, Training


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
    parts = training.parts
    parts.batches, parts.held_out = rounded(parts.batches), rounded(parts.held_out)
    return Planted(shows=training.steps)


def rounded(batches: Batches) -> Batches:
    def take(index: int) -> Batch:
        return tuple(part.bfloat16() if part.is_floating_point() else part for part in batches(index))

    return take
