from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training


@fault(
    "permuted-batch",
    signatures=("bad-batch", "loss-spike"),
    causes=("corrupt-batch", "wrong-targets"),
    fixes=("skip-batch", "clean-data", "fix-targets"),
    follows=("exploding-gradient",),
    doses=(0.1, 0.5, 1.0),
    found_from=1.0,
    needs=("classes|tokens|values",),
    by_harm=True,
)
def plant(training: Training, dose: float) -> Planted:
    """In one batch a share of the targets belongs to other inputs."""
    at = spots.moment(training, 0.5, 0.8)

    def change(index: int, batch: Batch) -> Batch:
        rows = round(dose * len(batch[0]))
        targets = batch[-1].clone()
        targets[:rows] = targets[:rows].roll(rows // 2, 0)
        if targets.dim() > 1:
            targets[:rows] = targets[:rows].roll(targets.shape[1] // 2, 1)
        return *batch[:-1], targets

    spots.at_batches(training, lambda index: index == at, change)
    return Planted(at, shows=3)
