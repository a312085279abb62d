from __future__ import annotations

from torch import nn

from stabdiag.reference.data import Batches
from stabdiag.reference.train import Options, build_model, build_optimizer
from stabdiag.zoo.fault import Planted, fault


@fault(
    "bad-init",
    roots=["bad-initialization"],
    causes=["bad-init-scale"],
    steps=120,
)
def plant(options: Options, batches: Batches) -> Planted:
    """All matrices start at N(0, 1), fifty times too wide: the first loss is many times ln V."""
    model = build_model(options)
    for weight in model.parameters():
        if weight.dim() >= 2:
            nn.init.normal_(weight, std=1.0)
    return model, build_optimizer(model, options), batches
