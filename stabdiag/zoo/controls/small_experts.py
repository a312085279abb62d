from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("small-batch-experts", needs=("router",), batch=4)
def prepare(training: Training) -> None:
    """Four sequences a batch among four experts: loads that vary much."""
