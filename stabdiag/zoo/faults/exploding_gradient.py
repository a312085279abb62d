from __future__ import annotations

from torch import nn

from stabdiag.reference.data import Batches
from stabdiag.reference.train import Options, build_model, build_optimizer
from stabdiag.zoo.fault import Planted, fault

GAIN = 10.0


@fault(
    "exploding-gradient",
    roots=["exploding-gradient"],
    causes=["bad-init-scale", "missing-normalization", "missing-residual"],
    steps=120,
    layers=12,
)
def plant(options: Options, batches: Batches) -> Planted:
    """Twelve tanh layers in a row take the place of the blocks, their weights ten times the critical scale.

    Activations stay within one; but each layer multiplies the gradient by more than two on its way to the
    input (the chaotic phase of Schoenholz et al. 2017), so the first layers receive some 2,000 times what
    the last ones do, and the global norm is in the thousands.
    """
    model = build_model(options)
    width = options.width
    model.blocks = nn.ModuleList(
        nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(options.layers)
    )
    nn.init.normal_(model.tokens.weight)
    for layer in model.blocks:
        nn.init.normal_(layer.get_parameter("0.weight"), std=GAIN / width**0.5)
    return model, build_optimizer(model, options), batches
