from __future__ import annotations

import torch

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("autocast")
def prepare(training: Training) -> None:
    """The forward pass runs in bfloat16 under autocast, the weights stay in float32."""
    training.autocast = torch.bfloat16
