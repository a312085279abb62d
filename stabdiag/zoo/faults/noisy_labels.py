from __future__ import annotations

import torch
from torch import Tensor

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
    needs=("classes",),
    least="info",
)
def plant(training: Training, dose: float) -> Planted:
    """A small data set is seen again and again, shuffled each time, and a share of its labels is wrong: the
    model learns them by heart."""
    sound = training.parts.batches
    source = torch.Generator().manual_seed(training.seed)
    pool = [(*inputs, mislabelled(classes, dose, source)) for *inputs, classes in map(sound, range(POOL))]

    def batches(index: int) -> Batch:
        epoch, place = divmod(index, POOL)
        order = torch.Generator().manual_seed(epoch)
        if joined(pool[0]):
            return pool[int(torch.randperm(POOL, generator=order)[place])]
        samples = [torch.cat(parts) for parts in zip(*pool, strict=True)]
        count = len(samples[0])
        rows = torch.randperm(count, generator=order).chunk(POOL)[place]
        return tuple(part[rows] for part in samples)

    training.parts.batches = batches
    training.evaluate_every = 25
    return Planted(shows=training.steps)


def mislabelled(classes: Tensor, share: float, source: torch.Generator) -> Tensor:
    wrong = torch.rand(len(classes), generator=source) < share
    return torch.where(wrong, classes[torch.randperm(len(classes), generator=source)], classes)


def joined(batch: Batch) -> bool:
    """Whether its samples cannot be taken apart, as nodes of graphs."""
    return len({len(part) for part in batch}) > 1
