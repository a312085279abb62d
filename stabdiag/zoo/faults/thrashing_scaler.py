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
    optimizers=("adam", "adamw", "adamw-999", "sgd"),
)
def plant(training: Training, dose: float) -> Planted:
    """Under a gradient scaler the gradient of one matrix overflows in a share of the steps: the scale only
    falls."""
    at = spots.moment(training, 0.2, 0.4)
    training.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=20)
    _, weight = spots.matrix(training, spots.block(training))
    now = 0

    def follow(step: int) -> None:
        nonlocal now
        now = step

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("inf") if now >= at and training.random.random() < dose else gradient

    training.before.append(follow)
    weight.register_hook(overflow)  # type: ignore[no-untyped-call]
    return Planted(at, shows=60)
