from __future__ import annotations

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "schedule-runs-ahead",
    signatures=("schedule-jump", "lr-starvation", "update-ratio-low"),
    causes=("schedule-bug", "learning-rate-too-low"),
    fixes=("fix-schedule", "raise-learning-rate"),
    follows=("loss-plateau",),
    doses=(1.5, 3.0, 6.0),
    found_from=3.0,
)
def plant(training: Training, dose: float) -> Planted:
    """The scheduler is stepped several times a step: the learning rate is zero long before the end."""
    training.final = 0.0
    training.rate = lambda step: training.scheduled(min(int(step * dose), training.steps - 1))
    at = int(training.steps / dose)
    return Planted(max(at - 30, 0), shows=90)
