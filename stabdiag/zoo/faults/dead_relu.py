from __future__ import annotations

from torch import nn

from stabdiag.reference.data import Batches
from stabdiag.reference.model import MLP
from stabdiag.reference.train import Options, build_model, build_optimizer
from stabdiag.zoo.fault import Planted, fault


@fault(
    "dead-relu",
    roots=["dead-units"],
    causes=["dying-relu"],
    site="blocks.1.mlp*",
    steps=120,
)
def plant(options: Options, batches: Batches) -> Planted:
    """ReLU in the MLP of block 1, with biases of -3: no unit of it is ever active, none can recover."""
    model = build_model(options)
    mlp = model.get_submodule("blocks.1.mlp")
    assert isinstance(mlp, MLP)
    mlp.activation = nn.ReLU()
    nn.init.constant_(mlp.expand.bias, -3.0)
    return model, build_optimizer(model, options), batches
