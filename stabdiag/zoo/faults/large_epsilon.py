from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "large-epsilon",
    signatures=("adam-eps-dominated",),
    causes=("optimizer-epsilon",),
    fixes=("lower-epsilon", "raise-learning-rate"),
    follows=("update-ratio-low", "lr-starvation", "loss-plateau"),
    doses=(1e-4, 1e-2, 1.0),
    found_from=1.0,
    optimizers=("adaptive",),
)
def plant(training: Training, dose: float) -> Planted:
    """Epsilon is far above the square root of the second moment: what is left of the updates is small."""

    def enlarge() -> None:
        for group in training.optimizers[0].param_groups:
            group["eps"] = dose

    spots.once(training, 0, enlarge)
    return Planted(shows=training.steps)
