from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "thrashing-scaler",
    signatures=("loss-scale-thrash",),
    causes=("precision-overflow",),
    fixes=("use-bfloat16", "loss-scaling", "fp32-operation", "lower-learning-rate"),
    follows=("nonfinite-origin", "lr-starvation", "update-ratio-low"),
    doses=(0.01, 0.3, 1.0),
    found_from=0.3,
    needs=("classes|tokens|values",),
)
def plant(training: Training, dose: float) -> Planted:
    """In a share of the steps the gradient of one matrix passes float16 a hundred to a hundred thousand times
    too large, and overflows at scales that held before."""
    at = spots.moment(training, 0.2, 0.4)
    training.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=20)
    _, weight = spots.matrix(training, spots.block(training))
    now = 0

    def follow(step: int) -> None:
        nonlocal now
        now = step

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        if now < at or training.random.random() >= dose:
            return gradient
        factor = 10.0 ** training.random.uniform(2, 5)
        rounded: torch.Tensor = (gradient * factor).half().to(gradient.dtype) / factor
        return rounded

    training.before.append(follow)
    weight.register_hook(overflow)  # type: ignore[no-untyped-call]
    return Planted(at, shows=60)
