from __future__ import annotations

import torch
from torch import nn

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "exploding-recurrence",
    signatures=("exploding-gradient", "bad-initialization", "exploding-activation", "nonfinite-origin"),
    causes=("recurrent-instability", "bad-init-scale"),
    fixes=("rescale-init", "gated-recurrence", "clip-gradients"),
    follows=("loss-divergence", "loss-spike"),
    doses=(1.2, 1.6, 2.0),
    found_from=2.0,
    needs=("recurrent",),
    shape={"nonlinearity": "relu"},
)
def plant(training: Training, dose: float) -> Planted:
    """The recurrent matrix of a ReLU network stretches what it is given: forty steps multiply it."""
    name, layer = next((n, m) for n, m in training.model.named_modules() if isinstance(m, nn.RNN))
    with torch.no_grad():
        layer.get_parameter("weight_hh_l0").mul_(dose)
    training.clip = 0.0
    return Planted(0, (f"{name}*",))
