from __future__ import annotations

import torch

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "bad-init",
    signatures=("bad-initialization",),
    causes=("bad-init-scale",),
    fixes=("rescale-init", "add-normalization", "lower-learning-rate"),
    follows=(
        "attention-entropy-collapse",
        "exploding-gradient",
        "saturated-units",
        "update-ratio-low",
        "loss-plateau",
    ),
    doses=(2.0, 10.0, 50.0),
    found_from=50.0,
    needs=("head",),
)
def plant(training: Training, dose: float) -> Planted:
    """All matrices start many times too wide."""
    with torch.no_grad():
        for weight in training.model.parameters():
            if weight.dim() >= 2:
                weight.mul_(dose)
    return Planted(shows=5)
