"""Adam, as it comes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stabdiag.zoo.optimizer import optimizer


@optimizer("adam", beta2=0.999)
def make(parameters: Sequence[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=lr)
