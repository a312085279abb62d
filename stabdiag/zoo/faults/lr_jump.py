from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "lr-jump",
    signatures=("schedule-jump", "lr-divergence", "loss-divergence", "loss-spike"),
    causes=("schedule-bug", "learning-rate-too-high"),
    fixes=("fix-schedule", "lower-learning-rate", "rollback"),
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
        "update-ratio-high",
        "adam-stale-second-moment",
    ),
    doses=(3.0, 10.0, 30.0, 100.0),
    found_from=30.0,
    optimizers=("follows",),
    by_harm=True,
)
def plant(training: Training, dose: float) -> Planted:
    """At some step the learning rate is multiplied, as by a scheduler that is restored wrongly, and stays
    so."""
    at = spots.moment(training)
    training.rate = lambda step: training.scheduled(step) * (dose if step >= at else 1.0)
    return Planted(at, shows=15)
