from __future__ import annotations

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "peak-too-high",
    signatures=(
        "warmup-end-instability",
        "lr-divergence",
        "loss-divergence",
        "update-ratio-high",
        "attention-logit-growth",
        "attention-entropy-collapse",
        "oscillating-plateau",
    ),
    causes=("learning-rate-too-high", "missing-warmup"),
    fixes=("lower-learning-rate", "add-warmup", "rollback"),
    follows=(
        "residual-stream-growth",
        "weight-norm-drift",
        "output-logit-drift",
        "exploding-activation",
        "exploding-gradient",
        "activation-outliers",
        "dead-units",
        "saturated-units",
        "rank-collapse",
        "context-blind-plateau",
        "loss-plateau",
        "loss-spike",
        "adam-stale-second-moment",
    ),
    doses=(5.0, 20.0, 60.0, 200.0),
    found_from=200.0,
    optimizers=("follows",),
    leads=True,
)  # fmt: skip
def plant(training: Training, dose: float) -> Planted:
    """The learning rate warms up, to a peak that the model does not bear, and stays there."""
    training.lr *= dose
    training.warmup, training.final, training.clip = 60, 1.0, 0.0
    return Planted(0, shows=125)
