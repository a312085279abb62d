from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training


@fault(
    "raw-input",
    signatures=("unnormalized-input",),
    causes=("unnormalized-input",),
    fixes=("normalize-input",),
    follows=("bad-initialization", "exploding-gradient", "exploding-activation", "dead-units",
             "saturated-units", "loss-spike", "loss-plateau", "loss-divergence", "vanishing-gradient",
             "context-blind-plateau", "update-ratio-low"),
    doses=(3.0, 100.0, 1000.0),
    found_from=100.0,
    needs=("vectors|pictures|signals",),
    least="info",
)  # fmt: skip
def plant(training: Training, dose: float) -> Planted:
    """Inputs come in the hundreds, as pictures of bytes that nobody divided by 255, and off their center."""

    def change(index: int, batch: Batch) -> Batch:
        return batch[0] * dose + dose, *batch[1:]

    spots.at_batches(training, lambda index: True, change)
    return Planted(shows=30)
