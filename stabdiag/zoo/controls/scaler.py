from __future__ import annotations

import torch

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control(
    "calibrating-scaler", needs=("classes|tokens|values",), optimizers=("adam", "adamw", "adamw-999", "sgd")
)
def prepare(training: Training) -> None:
    """A gradient scaler finds its scale: it begins too high, and now and then tries one that overflows."""
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=100)
