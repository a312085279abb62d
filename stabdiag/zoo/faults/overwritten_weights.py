from __future__ import annotations

import math

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "overwritten-weights",
    signatures=("silent-data-corruption",),
    causes=("weights-overwritten",),
    fixes=("stop-overwriting", "rollback"),
    follows=(
        "loss-spike",
        "loss-divergence",
        "exploding-activation",
        "exploding-gradient",
        "activation-outliers",
        "distribution-shift-or-resume",
        "adam-stale-second-moment",
    ),
    doses=(0.1, 1.0),
    found_from=math.inf,
)
def plant(training: Training, dose: float) -> Planted:
    """At some step the script initializes a block again, as by a call in the wrong place, or mixes a share of
    that into it."""
    at = spots.moment(training)
    within = f"{spots.block(training)}."
    weights = [(n, p) for n, p in training.model.named_parameters() if n.startswith(within) and p.dim() >= 2]
    source = torch.Generator().manual_seed(training.seed)

    @torch.no_grad()
    def initialize() -> None:
        for _, weight in weights:
            fresh = weight.std() * torch.randn(weight.shape, generator=source)
            weight.copy_((1 - dose) * weight + dose * fresh)

    spots.once(training, at, initialize)
    return Planted(at, tuple(name for name, _ in weights), shows=5)
