from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("high-lr", without=("adversarial",), optimizers=("adaptive",))
def prepare(training: Training) -> None:
    """Five times the usual learning rate, which is high and does no harm."""
    training.lr *= 5
