from __future__ import annotations

from torch import Tensor

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Batch, Training


@control("negative-loss", needs=("values",), without=("contrastive",))
def prepare(training: Training) -> None:
    """A likelihood of continuous values: the loss begins above zero and falls below it."""
    sound = training.loss

    def loss(batch: Batch) -> Tensor:
        return 0.5 * (sound(batch) + 1e-3).log()

    training.loss = loss
