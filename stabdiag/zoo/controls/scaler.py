from __future__ import annotations

import torch
from torch import Tensor

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training

LARGEST = 65504.0


def as_half(gradient: Tensor) -> Tensor:
    """Overflows where float16 would."""
    return torch.where(gradient.abs() > LARGEST, torch.inf, gradient)


@control(
    "calibrating-scaler",
    needs=("classes|tokens|values",),
)
def prepare(training: Training) -> None:
    """A gradient scaler finds its scale: it begins too high, and now and then tries one that overflows."""
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=100)
    for weight in training.model.parameters():
        weight.register_hook(as_half)  # type: ignore[no-untyped-call]
