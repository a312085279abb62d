from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("no-warmup")
def prepare(training: Training) -> None:
    """No warm-up, at the usual learning rate."""
    training.warmup = 0
