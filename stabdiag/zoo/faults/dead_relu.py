from __future__ import annotations

import torch

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
    needs=("mlp|vae",),
)
def plant(training: Training, dose: float) -> Planted:
    """The biases before one ReLU start so low that no unit of it is ever active, and none can recover."""
    layer = "encoder.3" if hasattr(training.model, "encoder") else f"{training.random.randrange(1, 4)}.0"
    with torch.no_grad():
        training.model.get_parameter(f"{layer}.bias").sub_(dose)
    block = layer.rpartition(".")[0]
    return Planted(0, (f"{block}*",), shows=100)
