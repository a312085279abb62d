from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "saturated-layer",
    signatures=("saturated-units", "bad-initialization"),
    causes=("saturating-activation", "bad-init-scale"),
    fixes=("rescale-init", "change-activation", "add-normalization", "normalize-input"),
    follows=("vanishing-gradient", "update-ratio-low", "loss-plateau", "exploding-gradient"),
    doses=(3.0, 20.0, 200.0),
    found_from=200.0,
    needs=("tanh", "vectors"),
)
def plant(training: Training, dose: float) -> Planted:
    """The weights of one tanh layer start far too wide: its units are at minus one or one, whatever comes."""
    name = spots.block(training)
    with torch.no_grad():
        training.model.get_submodule(name).get_parameter("weight").mul_(dose)
    return Planted(0, (f"{name}*",), shows=100)
