from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("massive-activation", needs=("positions", "causal"))
def prepare(training: Training) -> None:
    """The first position has an embedding a hundred times the others', as language models grow themselves."""
    spots.positions(training.model)[..., 0, 3] = 20.0
