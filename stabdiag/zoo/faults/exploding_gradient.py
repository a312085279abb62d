from __future__ import annotations

from torch import nn

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "exploding-gradient",
    signatures=("exploding-gradient", "bad-initialization"),
    causes=("bad-init-scale", "missing-normalization", "missing-residual"),
    fixes=("rescale-init", "add-normalization", "clip-gradients", "add-residual"),
    follows=("saturated-units", "loss-plateau", "update-ratio-low"),
    doses=(2.0, 5.0, 10.0),
    found_from=10.0,
    needs=("tanh", "vectors"),
    shape={"layers": 12},
)
def plant(training: Training, dose: float) -> Planted:
    """Twelve tanh layers in a row start several times wider than is critical: each enlarges the gradient on
    its way to the input (the chaotic phase of Schoenholz et al. 2017)."""
    for name in training.parts.blocks:
        layer = training.model.get_submodule(name)
        weight = layer.get_parameter("weight")
        nn.init.normal_(weight, std=dose / weight.shape[1] ** 0.5)
    return Planted()
