from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("tied-weights", shape={"tied": True})
def prepare(training: Training) -> None:
    """The head shares the matrix of the token embedding."""
