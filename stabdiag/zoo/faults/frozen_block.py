from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "frozen-block",
    signatures=("frozen-parameters",),
    causes=("parameters-not-optimized",),
    fixes=("optimize-parameters",),
    follows=("gradients-not-zeroed", "clip-saturation"),
)
def plant(training: Training, dose: float) -> Planted:
    """The parameters of one block were not given to the optimizer: they receive gradients, and nobody moves
    them."""
    name = spots.block(training)
    training.left_out = set(training.model.get_submodule(name).parameters())
    return Planted(0, (f"{name}.*", name), shows=60)
