from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.control import control
from stabdiag.zoo.training import Batch, Training


@control("noisy-targets", needs=("classes|values",), without=("contrastive",))
def prepare(training: Training) -> None:
    """Much of the target is noise that nobody can learn: the loss falls a little, and stays."""

    def change(index: int, batch: Batch) -> Batch:
        source = torch.Generator().manual_seed(index % 2**31)
        *inputs, targets = batch
        if targets.is_floating_point():
            return *inputs, targets + torch.randn(targets.shape, generator=source)
        noise = targets[torch.randint(len(targets), targets.shape, generator=source)]
        return *inputs, torch.where(torch.rand(len(targets), generator=source) < 0.3, noise, targets)

    spots.at_batches(training, lambda index: True, change)
