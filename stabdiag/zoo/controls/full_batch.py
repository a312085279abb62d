from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("full-batch", needs=("vectors",), optimizers=("descends",), steps=800)
def prepare(training: Training) -> None:
    """Gradient descent on all the data at once, at the edge of stability: not monotone, and it learns."""
    sound = training.parts.batches
    training.parts.batches = lambda index: sound(0)
    training.final, training.lr = 1.0, training.lr * 2
