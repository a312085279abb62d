from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("never-clipped", needs=("transformer|recurrent",))
def prepare(training: Training) -> None:
    """No clipping."""
    training.clip = 0.0
