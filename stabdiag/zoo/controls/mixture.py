from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.control import control
from stabdiag.zoo.training import Batch, Training


@control("ramped-mixture", needs=("tokens", "causal"))
def prepare(training: Training) -> None:
    """A second language joins the first little by little, up to a third of each batch."""
    most = 1 + max(int(training.parts.batches(i)[0].max()) for i in range(20))
    renamed = torch.randperm(most, generator=torch.Generator().manual_seed(training.seed))

    def change(index: int, batch: Batch) -> Batch:
        rows = int(len(batch[0]) / 3 * min(1.0, index / training.steps))
        changed = [part.clone() for part in batch]
        for part in changed:
            part[:rows] = renamed[part[:rows].clamp(max=most - 1)]
        return tuple(changed)

    spots.at_batches(training, lambda index: index >= 0, change)
