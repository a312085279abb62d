from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("large-batch", batch=128, steps=250, needs=("vectors|pictures",))
def prepare(training: Training) -> None:
    """Large batches."""
