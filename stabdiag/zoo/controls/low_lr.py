from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("low-lr")
def prepare(training: Training) -> None:
    """A third of the usual learning rate: slower, and sound."""
    training.lr /= 3
