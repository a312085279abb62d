from __future__ import annotations

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "clip-too-tight",
    signatures=("clip-saturation",),
    causes=("clip-too-tight",),
    fixes=("loosen-clipping", "adaptive-clipping", "raise-learning-rate"),
    follows=("lr-starvation", "update-ratio-low", "loss-plateau"),
    doses=(0.3, 0.03, 0.003),
    found_from=0.03,
    optimizers=("descends",),
)
def plant(training: Training, dose: float) -> Planted:
    """Gradients are clipped to a small part of their norm at every step, which divides the learning rate."""
    training.clip = dose
    return Planted(shows=training.steps)
