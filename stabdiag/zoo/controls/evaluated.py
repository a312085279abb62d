from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("evaluated")
def prepare(training: Training) -> None:
    """Evaluated often, in evaluation mode, and put back into training mode."""
    training.evaluate_every = 20
