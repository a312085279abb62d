from __future__ import annotations

from torch import nn

from stabdiag.reference.data import Batches
from stabdiag.reference.train import Options, build_model, build_optimizer
from stabdiag.zoo.fault import Planted, fault


@fault(
    "vanishing-gradient",
    roots=["vanishing-gradient"],
    causes=["saturating-activation", "missing-residual", "missing-normalization", "bad-init-scale"],
    site="*",
    steps=200,
    batch=16,
    layers=10,
)
def plant(options: Options, batches: Batches) -> Planted:
    """Ten sigmoid layers in a row take the place of the blocks, with no residual and no norm between.

    A sigmoid passes at most a quarter of a gradient; the first layers receive less than a billionth of it.
    """
    model = build_model(options)
    model.blocks = nn.ModuleList(
        nn.Sequential(nn.Linear(options.width, options.width), nn.Sigmoid()) for _ in range(options.layers)
    )
    return model, build_optimizer(model, options), batches
