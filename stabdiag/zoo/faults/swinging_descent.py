from __future__ import annotations

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "swinging-descent",
    signatures=("oscillating-plateau", "edge-of-stability", "lr-divergence"),
    causes=("learning-rate-too-high",),
    fixes=("lower-learning-rate",),
    follows=("loss-divergence", "loss-spike", "loss-plateau", "data-repetition"),
    doses=(1.0, 10.0, 30.0),
    found_from=30.0,
    needs=("regression",),
    optimizers=("sgd",),
    leads=True,
)
def plant(training: Training, dose: float) -> Planted:
    """Gradient descent on one batch alone, with a step beyond what the curvature allows: the loss swings."""
    sound = training.parts.batches
    training.parts.batches = lambda index: sound(0)
    training.lr *= dose
    training.final, training.warmup = 1.0, 0
    return Planted(shows=training.steps)
