from __future__ import annotations

from torch import Tensor

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training


@fault(
    "stale-second-moment",
    signatures=("adam-stale-second-moment",),
    causes=("stale-second-moment",),
    fixes=("lower-beta2", "clip-updates", "clip-gradients", "lower-learning-rate"),
    follows=("loss-spike", "update-ratio-high", "exploding-gradient", "loss-divergence"),
    doses=(2.0, 5.0, 30.0, 100.0),
    found_from=30.0,
    optimizers=("slow-moments",),
    leads=True,
    undoes=False,
    by_harm=True,
)
def plant(training: Training, dose: float) -> Planted:
    """All gradients are scaled down until some step, then come whole: the second moment remembers small
    ones."""
    at = spots.moment(training)
    training.clip, training.lr, training.final = 0.0, 2 * training.lr, 1.0
    sound, now = training.loss, 0

    def follow(step: int) -> None:
        nonlocal now
        now = step

    def loss(batch: Batch) -> Tensor:
        value = sound(batch)
        # The value stays what it is; its gradient alone is divided.
        return value if now >= at else value / dose + (value - value / dose).detach()

    training.before.append(follow)
    training.loss = loss
    return Planted(at, shows=10)
