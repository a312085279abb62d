from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("healthy")
def prepare(training: Training) -> None:
    """Nothing is changed."""
