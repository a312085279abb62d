from __future__ import annotations

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "lr-too-high",
    signatures=("lr-divergence", "loss-divergence", "update-ratio-high"),
    causes=("learning-rate-too-high", "missing-warmup"),
    fixes=("lower-learning-rate", "add-warmup", "rollback"),
    follows=(
        "attention-logit-growth",
        "attention-entropy-collapse",
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
    doses=(3.0, 10.0, 30.0, 100.0, 300.0),
    found_from=300.0,
)
def plant(training: Training, dose: float) -> Planted:
    """The learning rate is many times what the model bears, without warm-up or clipping, and never falls."""
    training.lr *= dose
    training.warmup, training.final, training.clip = 0, 1.0, 0.0
    return Planted()
