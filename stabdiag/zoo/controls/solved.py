from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("solved", needs=("solvable",), steps=700)
def prepare(training: Training) -> None:
    """A task that is soon solved: the loss is zero for most of the run, and gradients are small."""
    training.final = 1.0
