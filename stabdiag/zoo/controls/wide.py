from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("wide", needs=("tokens|vectors",), shape={"width": 160}, steps=250)
def prepare(training: Training) -> None:
    """Several times as wide, at half the learning rate."""
    training.lr /= 2
