from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training


@fault(
    "shuffled-targets",
    signatures=("context-blind-plateau", "loss-plateau"),
    causes=("wrong-targets",),
    fixes=("fix-targets", "clean-data"),
    follows=("noise-dominated",),
    needs=("classes|tokens|values",),
)
def plant(training: Training, dose: float) -> Planted:
    """The targets of each batch are shuffled: which belongs to what cannot be learned, only how often each
    comes."""

    def change(index: int, batch: Batch) -> Batch:
        targets = batch[-1]
        source = torch.Generator().manual_seed(index % 2**31)
        values = (
            targets.shape[2:]
            if targets.is_floating_point() and targets.dim() > 2
            else targets.shape[1:]
            if targets.is_floating_point()
            else ()
        )
        flat = targets.reshape(-1, *values)
        return *batch[:-1], flat[torch.randperm(len(flat), generator=source)].view_as(targets)

    spots.at_batches(training, lambda index: True, change)
    return Planted(shows=training.steps)
