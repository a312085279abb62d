from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.pretrained import pretrain
from stabdiag.zoo.training import Training


@control("gentle-tuning", without=("adversarial",), steps=300)
def prepare(training: Training) -> None:
    """A model that was trained before is trained on, at a fifth of the rate: it begins with a good loss."""
    pretrain(training)
    training.lr /= 5
