from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.control import control
from stabdiag.zoo.training import Batch, Training


@control("curriculum", needs=("tokens", "causal"))
def prepare(training: Training) -> None:
    """Sequences become longer in stages: the loss steps a little at each, and learning goes on."""

    def change(index: int, batch: Batch) -> Batch:
        length = batch[0].shape[1]
        stage = 1 + 4 * index // training.steps
        return tuple(part[:, : max(length * min(stage, 4) // 4, 1)] for part in batch)

    spots.at_batches(training, lambda index: index >= 0, change)
