from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "hot-layer",
    signatures=("update-ratio-high", "width-misparametrization", "lr-divergence"),
    causes=("learning-rate-too-high",),
    fixes=("lower-learning-rate", "clip-updates", "add-warmup"),
    follows=(
        "loss-divergence",
        "attention-logit-growth",
        "dead-units",
        "exploding-activation",
        "loss-spike",
        "loss-plateau",
    ),
    doses=(3.0, 30.0, 300.0),
    found_from=300.0,
)
def plant(training: Training, dose: float) -> Planted:
    """One layer moves many times faster than the others, as where its multiplier was forgotten."""
    name = spots.block(training)
    spots.multiplied(training, set(training.model.get_submodule(name).parameters()), dose)
    return Planted(0, (f"{name}*",), shows=60)
