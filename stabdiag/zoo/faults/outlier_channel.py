from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "outlier-channel",
    signatures=("activation-outliers", "exploding-activation"),
    causes=("hardware-corruption", "bad-init-scale", "missing-normalization"),
    fixes=("lower-learning-rate", "raise-weight-decay", "add-normalization", "replay-step", "rollback"),
    follows=("loss-spike", "silent-data-corruption"),
    doses=(30.0, 300.0),
    found_from=300.0,
    needs=("transformer", "norm"),
    least="info",
)
def plant(training: Training, dose: float) -> Planted:
    """From some step on one channel of one norm has a gain of hundreds."""
    at = spots.moment(training)
    name = spots.block(training)
    gains = [
        (n, p)
        for n, p in training.model.named_parameters()
        if n.startswith(f"{name}.") and "norm" in n and p.dim() == 1
    ]
    place, gain = training.random.choice([(n, p) for n, p in gains if not n.endswith("bias")])

    @torch.no_grad()
    def raise_gain() -> None:
        gain[3] = dose

    spots.once(training, at, raise_gain)
    return Planted(at, (f"{spots.owner(place)}*",), shows=20)
