from __future__ import annotations

import math

import torch

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training

POOL = 24


@fault(
    "sorted-data",
    signatures=("distribution-shift-or-resume",),
    causes=("sorted-data", "distribution-shift"),
    fixes=("reshuffle-data", "larger-batch"),
    follows=(
        "loss-spike",
        "loss-divergence",
        "loss-plateau",
        "context-blind-plateau",
        "bad-batch",
        "norm-statistics-mismatch",
        "data-repetition",
        "overfitting",
        "exploding-gradient",
        "adam-stale-second-moment",
    ),
    needs=("classes",),
    without=("edges", "contrastive"),
    doses=(2.0, 8.0),
    found_from=math.inf,
)
def plant(training: Training, dose: float) -> Planted:
    """The data come class by class, as from a folder that is read in its order: so many batches of one class,
    then of the next."""
    sound = training.parts.batches
    samples = [torch.cat(parts) for parts in zip(*(sound(i) for i in range(POOL)), strict=True)]
    size, classes = len(sound(0)[-1]), sorted(set(samples[-1].tolist()))

    def batches(index: int) -> Batch:
        turn, place = divmod(index, int(dose))
        rows = (samples[-1] == classes[turn % len(classes)]).nonzero()[:, 0]
        own = torch.arange(place * size, (place + 1) * size) % len(rows)
        return tuple(part[rows[own]] for part in samples)

    training.parts.batches = batches
    return Planted(shows=training.steps)
