from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training


@fault(
    "renumbered-targets",
    signatures=("context-blind-plateau", "loss-plateau"),
    causes=("wrong-targets",),
    fixes=("fix-targets", "clean-data"),
    follows=("noise-dominated",),
    needs=("classes|tokens",),
)
def plant(training: Training, dose: float) -> Planted:
    """The classes are numbered anew for each batch, as by a vocabulary built batch by batch: nothing can be
    learned."""
    count = 1 + max(int(training.parts.batches(i)[-1].max()) for i in range(20))

    def change(index: int, batch: Batch) -> Batch:
        source = torch.Generator().manual_seed(index % 2**31)
        return *batch[:-1], torch.randperm(count, generator=source)[batch[-1].clamp(max=count - 1)]

    spots.at_batches(training, lambda index: True, change)
    return Planted(shows=training.steps)
