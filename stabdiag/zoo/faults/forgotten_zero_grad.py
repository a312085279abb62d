from __future__ import annotations

from torch.optim import Optimizer

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


def nothing(optimizer: Optimizer) -> None:
    pass


@fault(
    "forgotten-zero-grad",
    signatures=("gradients-not-zeroed",),
    causes=("gradients-not-zeroed",),
    fixes=("zero-gradients",),
    follows=(
        "loss-divergence",
        "loss-spike",
        "lr-divergence",
        "adam-correlated-update",
        "exploding-gradient",
        "loss-plateau",
    ),
)
def plant(training: Training, dose: float) -> Planted:
    """Nobody zeroes the gradients: each step follows the sum of all gradients since the beginning."""
    training.zero_grad = nothing
    return Planted(shows=60)
