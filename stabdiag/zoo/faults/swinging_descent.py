from __future__ import annotations

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "swinging-descent",
    signatures=("oscillating-plateau", "edge-of-stability", "lr-divergence", "update-ratio-high"),
    causes=("learning-rate-too-high",),
    fixes=("lower-learning-rate",),
    follows=("loss-plateau", "data-repetition", "noise-dominated"),
    doses=(3.0, 25.0, 75.0),
    found_from=75.0,
    needs=("values",),
    optimizers=("lion",),
    leads=True,
)
def plant(training: Training, dose: float) -> Planted:
    """Descent by signs on one batch alone, with steps that are too long and never shorten: each takes back
    what the last one won, and the loss swings about a level that is not its best."""
    sound = training.parts.batches
    training.parts.batches = lambda index: sound(0)
    training.lr *= dose
    training.final, training.warmup = 1.0, 0
    return Planted(shows=training.steps)
