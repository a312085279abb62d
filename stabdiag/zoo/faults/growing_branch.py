from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "growing-branch",
    signatures=("residual-stream-growth", "exploding-activation", "weight-norm-drift"),
    causes=(
        "weights-overwritten",
        "missing-normalization",
        "bad-init-scale",
        "weight-decay-too-low",
        "learning-rate-too-high",
    ),
    fixes=(
        "stop-overwriting",
        "add-normalization",
        "raise-weight-decay",
        "lower-learning-rate",
        "rescale-init",
    ),
    follows=("loss-divergence", "activation-outliers"),
    doses=(1.005, 1.03, 1.06),
    found_from=1.06,
    needs=("stream",),
    without=("router",),
    leads=True,
)
def plant(training: Training, dose: float) -> Planted:
    """From some step on the last layer of one residual branch grows by a share at every step."""
    at = spots.moment(training, 0.3, 0.5)
    name = spots.block(training)
    spots.always_from(training, at, spots.scaled(spots.closing(training, name).weight, dose))
    return Planted(at, (f"{name}*",), shows=100)
