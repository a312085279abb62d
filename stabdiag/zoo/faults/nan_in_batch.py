from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training


@fault(
    "nan-in-batch",
    signatures=("nonfinite-origin",),
    causes=("nonfinite-input",),
    fixes=("clean-data", "skip-nonfinite-steps", "skip-batch"),
    follows=("loss-divergence", "bad-batch", "loss-plateau"),
    needs=("vectors|pictures|signals",),
)
def plant(training: Training, dose: float) -> Planted:
    """One value of one batch is not a number."""
    at = spots.moment(training)

    def change(index: int, batch: Batch) -> Batch:
        first = batch[0].clone()
        first.view(-1)[training.random.randrange(first.numel())] = float("nan")
        return first, *batch[1:]

    spots.at_batches(training, lambda index: index == at, change)
    return Planted(at, shows=1)
