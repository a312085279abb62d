from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("no-decay", optimizers=("decays",))
def prepare(training: Training) -> None:
    """No weight decay: norms grow, and do no harm."""

    def stop() -> None:
        for group in training.optimizers[0].param_groups:
            group["weight_decay"] = 0.0

    spots.once(training, 0, stop)
