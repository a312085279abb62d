from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stabdiag.zoo.control import control
from stabdiag.zoo.pretrained import pretrain
from stabdiag.zoo.training import Training


class LowRank(nn.Module):
    """Adds a product that begins at zero to a frozen weight (Hu et al. 2021)."""

    def __init__(self, weight: Tensor, rank: int = 4) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) / weight.shape[1] ** 0.5)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


@control(
    "low-rank-tuning",
    needs=("transformer|vectors",),
    without=("router",),
    optimizers=("adaptive",),
    steps=300,
)
def prepare(training: Training) -> None:
    """A trained model is frozen, and small additions to its matrices, which begin at zero, are trained on."""
    pretrain(training)
    training.model.requires_grad_(False)
    for name in training.parts.blocks:
        for layer in [m for m in training.model.get_submodule(name).modules() if isinstance(m, nn.Linear)]:
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight))
