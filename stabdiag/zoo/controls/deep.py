from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("deep", needs=("residual",), shape={"layers": 6}, steps=300)
def prepare(training: Training) -> None:
    """Twice as deep."""
