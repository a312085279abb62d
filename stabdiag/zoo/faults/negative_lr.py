from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "negative-lr",
    signatures=("schedule-jump", "loss-divergence"),
    causes=("schedule-bug",),
    fixes=("fix-schedule", "rollback"),
    follows=("lr-divergence",),
    doses=(0.1, 1.0),
    found_from=0.1,
)
def plant(training: Training, dose: float) -> Planted:
    """A linear schedule runs past its end: the learning rate falls below zero, and the loss is climbed."""
    at = spots.moment(training)

    def rate(step: int) -> float:
        return training.scheduled(step) if step < at else -dose * training.lr * min(1.0, (step - at + 1) / 40)

    training.rate = rate
    return Planted(at, shows=30)
