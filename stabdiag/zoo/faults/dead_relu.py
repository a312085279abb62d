from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "dead-relu",
    signatures=("dead-units",),
    causes=("dying-relu",),
    fixes=("reinitialize-dead-units", "change-activation", "rescale-init", "lower-learning-rate"),
    follows=(
        "vanishing-gradient",
        "context-blind-plateau",
        "loss-plateau",
        "frozen-parameters",
        "unreachable-parameters",
    ),
    doses=(0.3, 1.0, 5.0),
    found_from=5.0,
    needs=("relu",),
)
def plant(training: Training, dose: float) -> Planted:
    """The biases before one ReLU start so low that no unit of it is ever active, and none can recover."""
    name, bias = spots.rectified(training)
    with torch.no_grad():
        bias.sub_(dose)
    return Planted(0, (f"{name}*",), shows=100)
