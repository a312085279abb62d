from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "heavy-decay",
    signatures=("weight-norm-drift", "loss-plateau", "context-blind-plateau"),
    causes=("weight-decay-too-high",),
    fixes=("lower-weight-decay",),
    follows=("vanishing-gradient", "attention-uniform", "rank-collapse"),
    doses=(1.0, 10.0, 100.0),
    found_from=100.0,
    optimizers=("adamw", "adamw-999"),
)
def plant(training: Training, dose: float) -> Planted:
    """Weight decay pulls all matrices to zero faster than they learn."""

    def decay() -> None:
        for group in training.optimizers[0].param_groups:
            if group["weight_decay"]:
                group["weight_decay"] = dose

    spots.once(training, 0, decay)
    return Planted(shows=training.steps)
