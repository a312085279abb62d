from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("light-kl", needs=("latent",), shape={"beta": 0.2})
def prepare(training: Training) -> None:
    """The divergence from the prior weighs little."""
