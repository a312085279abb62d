from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "growing-head",
    signatures=("output-logit-drift", "weight-norm-drift"),
    causes=("weights-overwritten", "unbounded-output-logits", "weight-decay-too-low"),
    fixes=("stop-overwriting", "z-loss", "raise-weight-decay", "lower-learning-rate"),
    follows=("loss-divergence", "exploding-activation", "exploding-gradient"),
    doses=(1.003, 1.02, 1.05),
    found_from=1.05,
    needs=("head",),
    leads=True,
)
def plant(training: Training, dose: float) -> Planted:
    """From some step on the weight of the last layer grows by a share at every step."""
    at = spots.moment(training, 0.3, 0.5)
    name, layer = spots.head(training)
    spots.always_from(training, at, spots.scaled(layer.weight, dose))
    return Planted(at, (name, f"{name}.weight"), shows=100)
