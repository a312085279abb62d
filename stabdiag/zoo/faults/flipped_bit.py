from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "flipped-bit",
    signatures=("silent-data-corruption", "nonfinite-origin", "exploding-activation"),
    causes=("hardware-corruption",),
    fixes=("replay-step", "rollback", "skip-nonfinite-steps"),
    follows=("loss-divergence", "loss-spike", "activation-outliers", "exploding-gradient"),
    doses=(26.0, 30.0),
    found_from=30.0,
    recurs=False,
)
def plant(training: Training, dose: float) -> Planted:
    """Before some step one bit of one weight is flipped; the thirtieth is the highest of the exponent."""
    at = spots.moment(training)
    name, weight = spots.matrix(training, spots.block(training))
    place = training.random.randrange(weight.numel())

    def flip() -> None:
        bits = weight.data.view(-1).view(torch.int32)
        bits[place] ^= 1 << int(dose)

    spots.once(training, at, flip)
    return Planted(at, (f"{spots.owner(name)}*",), shows=15)
