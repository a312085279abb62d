from __future__ import annotations

import torch

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training

POOL = 8


@fault(
    "noisy-labels",
    signatures=("label-noise-memorization", "overfitting"),
    causes=("label-noise", "too-little-data"),
    fixes=("relabel-data", "clean-data", "regularize", "early-stopping", "more-data"),
    follows=("data-repetition",),
    doses=(0.1, 0.4),
    found_from=0.4,
    needs=("mlp|conv|resnet",),
    least="info",
)
def plant(training: Training, dose: float) -> Planted:
    """Eight batches are seen again and again, and a share of their labels is wrong: the model learns them
    by heart."""
    sound = training.parts.batches

    def batches(index: int) -> Batch:
        inputs, classes = sound(index % POOL)
        source = torch.Generator().manual_seed(index % POOL)
        wrong = torch.rand(len(classes), generator=source) < dose
        return inputs, torch.where(wrong, torch.randint(6, classes.shape, generator=source), classes)

    training.parts.batches = batches
    training.evaluate_every = 25
    return Planted(shows=training.steps)
