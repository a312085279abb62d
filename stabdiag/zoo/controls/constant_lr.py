from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("constant-lr")
def prepare(training: Training) -> None:
    """The learning rate never falls."""
    training.final = 1.0
