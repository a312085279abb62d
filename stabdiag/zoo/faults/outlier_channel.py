from __future__ import annotations

import torch
from torch import nn

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "outlier-channel",
    signatures=("activation-outliers", "exploding-activation"),
    causes=("hardware-corruption", "bad-init-scale", "missing-normalization"),
    fixes=("lower-learning-rate", "raise-weight-decay", "add-normalization", "replay-step", "rollback"),
    follows=("loss-spike",),
    doses=(30.0, 300.0),
    found_from=300.0,
    needs=("transformer|recurrent", "norm"),
    least="info",
    undoes=False,
)
def plant(training: Training, dose: float) -> Planted:
    """From some step on one channel of what one norm gives is multiplied by tens or hundreds."""
    at = spots.moment(training)
    within = spots.block(training)
    norms = [
        (name, module)
        for name, module in training.model.named_modules()
        if name.startswith(f"{within}.") and "Norm" in type(module).__name__
    ]
    name, norm = training.random.choice(norms)
    channel = _Channel(dose)
    spots.continued(norm, channel)
    spots.once(training, at, channel.open)
    return Planted(at, (f"{name}*",), shows=20)


class _Channel(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.on = factor, False

    def open(self) -> None:
        self.on = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.on:
            return x
        gain = torch.ones(x.shape[-1], device=x.device)
        gain[3] = self.factor
        return x * gain
