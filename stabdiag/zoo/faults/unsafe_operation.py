from __future__ import annotations

import torch
from torch import Tensor, nn

from stabdiag.reference.data import Batches
from stabdiag.reference.model import MLP
from stabdiag.reference.train import Options, build_model, build_optimizer
from stabdiag.zoo.fault import Planted, fault

LAST = 60


class Annealed(nn.Module):
    """An activation whose temperature falls to exactly zero at training call `LAST`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        temperature = torch.tensor(1 - self.calls / LAST, device=x.device).clamp(min=0)
        self.calls += self.training
        return nn.functional.gelu(x) + 0.01 * temperature.log()


@fault(
    "unsafe-operation",
    roots=["nonfinite-origin"],
    causes=["unsafe-operation"],
    site="blocks.1.mlp*",
    step=LAST,
    steps=90,
    evaluate_every=0,
)
def plant(options: Options, batches: Batches) -> Planted:
    """The logarithm of an annealed temperature in the MLP of block 1: log(0) at step 60.

    Everything is finite before; from that step on the block's output, the loss and soon all weights are not.
    """
    model = build_model(options)
    mlp = model.get_submodule("blocks.1.mlp")
    assert isinstance(mlp, MLP)
    mlp.activation = Annealed()
    return model, build_optimizer(model, options), batches
