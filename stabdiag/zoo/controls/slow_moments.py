from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("slow-moments", needs=("transformer",), optimizers=("slow-moments",))
def prepare(training: Training) -> None:
    """A slow second moment and no weight decay: what large models are warned of, and small ones bear."""

    def stop() -> None:
        for group in training.optimizers[0].param_groups:
            group["weight_decay"] = 0.0

    spots.once(training, 0, stop)
    training.clip = 0.0
