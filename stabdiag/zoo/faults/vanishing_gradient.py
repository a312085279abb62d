from __future__ import annotations

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "vanishing-gradient",
    signatures=("vanishing-gradient", "context-blind-plateau"),
    causes=("saturating-activation", "missing-residual", "missing-normalization", "bad-init-scale"),
    fixes=("change-activation", "add-residual", "add-normalization", "rescale-init"),
    follows=("loss-plateau", "update-ratio-low", "saturated-units"),
    broken={"layers": 10, "activation": "sigmoid"},
    leads=True,
)
def plant(training: Training, dose: float) -> Planted:
    """Ten sigmoid layers in a row, of which each passes at most a quarter of the gradient."""
    return Planted(shows=100)
