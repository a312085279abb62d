from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("accumulated")
def prepare(training: Training) -> None:
    """Each step gathers the gradients of two micro-batches."""
    training.accumulate = 2
