from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "idle-attention",
    signatures=("attention-uniform",),
    causes=(
        "weights-overwritten",
        "bad-init-scale",
        "detached-graph",
        "parameters-not-optimized",
        "learning-rate-too-low",
    ),
    fixes=(
        "stop-overwriting",
        "rescale-init",
        "reattach-graph",
        "optimize-parameters",
        "raise-learning-rate",
    ),
    follows=("rank-collapse",),
    doses=(0.0,),
    found_from=0.0,
    needs=("attention",),
    least="info",
)
def plant(training: Training, dose: float) -> Planted:
    """The queries of one layer are held near zero, as by a wrong scale: it attends to everything alike."""
    name, weight = spots.queries(training)
    start = weight.clone()

    def hold() -> None:
        weight.copy_(start * 0.001)

    spots.always_from(training, 0, hold)
    return Planted(0, (name, f"{name}*"), shows=training.steps)
