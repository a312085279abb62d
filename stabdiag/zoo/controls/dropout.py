from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("dropout", shape={"dropout": 0.2})
def prepare(training: Training) -> None:
    """Dropout, and evaluations without it in between."""
    training.evaluate_every = 50
