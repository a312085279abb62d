from __future__ import annotations

from typing import Any

from torch import nn

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "double-softmax",
    signatures=("loss-plateau",),
    causes=("wrong-loss",),
    fixes=("fix-loss",),
    follows=("context-blind-plateau", "vanishing-gradient", "lr-starvation"),
    needs=("classes|tokens", "head"),
)
def plant(training: Training, dose: float) -> Planted:
    """The last layer gives probabilities, of which the loss takes the softmax again."""

    def squash(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        return output.softmax(-1)

    spots.head(training)[1].register_forward_hook(squash)
    return Planted(shows=training.steps)
