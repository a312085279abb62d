from __future__ import annotations

import torch

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "exploding-recurrence",
    signatures=("exploding-gradient", "bad-initialization", "exploding-activation", "nonfinite-origin"),
    causes=("recurrent-instability", "bad-init-scale"),
    fixes=("gated-recurrence", "clip-gradients", "rescale-init"),
    follows=("loss-divergence", "loss-spike"),
    doses=(1.2, 1.6, 2.0),
    found_from=2.0,
    needs=("rnn",),
    shape={"nonlinearity": "relu"},
)
def plant(training: Training, dose: float) -> Planted:
    """The recurrent matrix of a ReLU network stretches what it is given: forty steps multiply it."""
    with torch.no_grad():
        training.model.get_parameter("rnn.weight_hh_l0").mul_(dose)
    training.clip = 0.0
    return Planted(0, ("rnn*",))
