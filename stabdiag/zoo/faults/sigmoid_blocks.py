from __future__ import annotations

from torch import nn

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "sigmoid-blocks",
    signatures=("vanishing-gradient", "rank-collapse", "context-blind-plateau"),
    causes=("saturating-activation", "missing-residual", "missing-normalization", "bad-init-scale"),
    fixes=("change-activation", "add-residual", "add-normalization", "rescale-init"),
    follows=("loss-plateau", "update-ratio-low", "saturated-units"),
    needs=("gpt",),
    shape={"layers": 10},
    leads=True,
)
def plant(training: Training, dose: float) -> Planted:
    """Ten sigmoid layers in a row take the place of the blocks, with no residual and no norm between."""
    model, width = training.model, 48
    model.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Sigmoid()) for _ in range(10))
    return Planted(shows=100)
