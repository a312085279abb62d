from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "strong-discriminator",
    signatures=("gan-imbalance",),
    causes=("learning-rate-too-high", "learning-rate-too-low"),
    fixes=("raise-learning-rate", "lower-learning-rate"),
    follows=("vanishing-gradient", "update-ratio-low", "loss-divergence"),
    doses=(3.0, 30.0, 300.0),
    found_from=300.0,
    needs=("adversarial",),
)
def plant(training: Training, dose: float) -> Planted:
    """The generator learns far more slowly than the discriminator, which soon is never wrong."""

    spots.multiplied(training, set(training.parts.objectives[1].module.parameters()), 1 / dose)
    return Planted(0, ("generator*", "discriminator*"), shows=training.steps)
