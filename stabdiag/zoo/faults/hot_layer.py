from __future__ import annotations

import math

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "hot-layer",
    signatures=("update-ratio-high", "width-misparametrization", "lr-divergence", "loss-divergence"),
    causes=("learning-rate-too-high",),
    fixes=("lower-learning-rate", "clip-updates", "add-warmup"),
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
    doses=(3.0, 30.0, 300.0),
    found_from=math.inf,
)
def plant(training: Training, dose: float) -> Planted:
    """One layer moves many times faster than the others, as where its multiplier was forgotten."""
    name = spots.block(training)
    spots.multiplied(training, set(training.model.get_submodule(name).parameters()), dose)
    return Planted(0, (f"{name}*",), shows=60)
