"""Adam with Nesterov's momentum (Dozat 2016); as that weighs the latest gradient more, with a quick second
moment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stabdiag.zoo.optimizer import optimizer


@optimizer("nadam", scale=0.4, beta2=0.95)
def make(parameters: Sequence[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.NAdam(parameters, lr=lr, betas=(0.9, 0.95))
