from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("summed-loss", optimizers=("scale-free",))
def prepare(training: Training) -> None:
    """The loss is a sum over the batch, not a mean: a thousand times larger, which Adam does not see."""
    sound = training.loss
    training.loss = lambda batch: sound(batch) * 1000.0
    training.clip = 0.0
