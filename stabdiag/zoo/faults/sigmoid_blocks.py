from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "sigmoid-blocks",
    signatures=("vanishing-gradient", "rank-collapse", "context-blind-plateau"),
    causes=("saturating-activation", "missing-residual", "missing-normalization", "bad-init-scale"),
    fixes=("change-activation", "add-residual", "add-normalization", "rescale-init"),
    follows=("loss-plateau", "update-ratio-low", "saturated-units"),
    needs=("stack",),
    without=("router",),
    shape={"layers": 10},
    leads=True,
)
def plant(training: Training, dose: float) -> Planted:
    """Ten sigmoid layers in a row take the place of the blocks, with no residual and no norm between."""
    model, blocks = training.model, training.parts.blocks
    last = spots.closing(training, blocks[0])
    stack = model.get_submodule(spots.owner(blocks[0]))
    assert isinstance(stack, nn.ModuleList)
    for place in range(len(stack)):
        stack[place] = Sigmoid(last)
    return Planted(shows=100)


class Sigmoid(nn.Module):
    """A layer of the width of `like`, and its sigmoid; what a block is given beside the stream it leaves."""

    def __init__(self, like: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        width = like.weight.shape[0]
        self.layer = (
            nn.Linear(width, width) if isinstance(like, nn.Linear) else nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        y: Tensor = self.layer(x).sigmoid()
        return y
