"""RMSprop (Tieleman and Hinton 2012): gradients over the root of their running mean square, without
momentum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stabdiag.zoo.optimizer import optimizer


@optimizer("rmsprop", scale=0.3, beta2=0.9)
def make(parameters: Sequence[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, lr=lr, alpha=0.9)
