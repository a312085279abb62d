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
    """A small data set is seen again and again, shuffled each time, and a share of its labels is wrong: the
    model learns them by heart."""
    sound = training.parts.batches
    inputs, classes = (torch.cat(parts) for parts in zip(*map(sound, range(POOL)), strict=True))
    source = torch.Generator().manual_seed(training.seed)
    wrong = torch.rand(len(classes), generator=source) < dose
    labels = torch.where(wrong, classes[torch.randperm(len(classes), generator=source)], classes)
    size = len(classes) // POOL

    def batches(index: int) -> Batch:
        epoch, place = divmod(index, POOL)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        rows = order[place * size : (place + 1) * size]
        return inputs[rows], labels[rows]

    training.parts.batches = batches
    training.evaluate_every = 25
    return Planted(shows=training.steps)
