from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.control import control
from stabdiag.zoo.training import Batch, Training


@control("heavy-tails", needs=("values",), without=("contrastive",))
def prepare(training: Training) -> None:
    """A few targets in a thousand are outliers: single losses stand out, and training is sound."""

    def change(index: int, batch: Batch) -> Batch:
        source = torch.Generator().manual_seed(index % 2**31)
        targets = batch[-1]
        rare = torch.rand(targets.shape, generator=source) < 0.002
        return *batch[:-1], targets + rare * 6 * torch.randn(targets.shape, generator=source)

    spots.at_batches(training, lambda index: True, change)
