from __future__ import annotations

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "lr-too-low",
    signatures=("lr-starvation", "update-ratio-low", "loss-plateau"),
    causes=("learning-rate-too-low",),
    fixes=("raise-learning-rate", "fix-schedule"),
    doses=(10.0, 100.0, 1000.0, 10000.0),
    found_from=1000.0,
)
def plant(training: Training, dose: float) -> Planted:
    """The learning rate is a small part of what the model needs: gradients flow, and nothing moves."""
    training.lr /= dose
    return Planted(shows=training.steps)
