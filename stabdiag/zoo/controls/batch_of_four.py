from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("batch-of-four", batch=4)
def prepare(training: Training) -> None:
    """Four samples a batch: noisy losses with heavy tails."""
