from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("two-ranks", without=("router", "adversarial"), world=2)
def prepare(training: Training) -> None:
    """Two processes train together, each on batches of its own."""
