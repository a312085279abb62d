from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training


@fault(
    "corrupt-batch",
    signatures=("bad-batch", "loss-spike"),
    causes=("corrupt-batch", "out-of-distribution-batch"),
    fixes=("skip-batch", "clean-data"),
    follows=("exploding-gradient", "exploding-activation", "embedding-gradient-spike"),
    doses=(0.1, 0.5, 1.0),
    found_from=1.0,
    needs=("tokens|pictures|vectors|signals",),
    by_harm=True,
)
def plant(training: Training, dose: float) -> Planted:
    """A share of the sequences or pictures of one batch is garbage: random tokens, or noise ten times too
    loud."""
    at = spots.moment(training)

    def change(index: int, batch: Batch) -> Batch:
        source = torch.Generator().manual_seed(index)
        rows = round(dose * len(batch[0]))
        first = batch[0].clone()
        if first.is_floating_point():
            first[:rows] = 10 * torch.randn(first[:rows].shape, generator=source)
            return first, *batch[1:]
        most = int(max(int(part.max()) for part in batch)) + 1
        first[:rows] = torch.randint(most, first[:rows].shape, generator=source)
        last = batch[-1].clone()
        if last.shape == first.shape:
            last[:rows] = torch.randint(most, last[:rows].shape, generator=source)
        return first, *batch[1:-1], last

    spots.at_batches(training, lambda index: index == at, change)
    return Planted(at, shows=3)
