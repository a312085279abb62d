from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("always-clipped", optimizers=("adaptive",))
def prepare(training: Training) -> None:
    """Clipped at every step, which Adam does not mind."""
    training.clip = 0.01
