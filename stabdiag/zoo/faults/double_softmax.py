from __future__ import annotations

from torch import nn

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "double-softmax",
    signatures=("loss-plateau", "context-blind-plateau"),
    causes=("wrong-loss",),
    fixes=("fix-loss",),
    follows=("vanishing-gradient", "lr-starvation"),
    needs=("classes|tokens", "head"),
)
def plant(training: Training, dose: float) -> Planted:
    """The last layer gives probabilities, of which the loss takes the softmax again."""

    spots.continued(spots.head(training)[1], nn.Softmax(-1))
    return Planted(shows=training.steps)
