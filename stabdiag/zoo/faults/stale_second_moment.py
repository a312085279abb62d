from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "stale-second-moment",
    signatures=("adam-stale-second-moment",),
    causes=("stale-second-moment",),
    fixes=("lower-beta2", "clip-updates", "clip-gradients", "lower-learning-rate"),
    follows=("loss-spike", "update-ratio-high"),
    doses=(2.0, 5.0, 30.0, 100.0),
    found_from=30.0,
    optimizers=("adam", "adamw-999"),
    leads=True,
)
def plant(training: Training, dose: float) -> Planted:
    """The loss is scaled down until some step, then comes whole: the second moment remembers small
    gradients."""
    at = spots.moment(training)
    training.clip, training.lr, training.final = 0.0, 2 * training.lr, 1.0
    sound, now = training.loss, 0

    def follow(step: int) -> None:
        nonlocal now
        now = step

    training.before.append(follow)
    training.loss = lambda batch: sound(batch) / (dose if now < at else 1.0)
    return Planted(at, shows=10)
