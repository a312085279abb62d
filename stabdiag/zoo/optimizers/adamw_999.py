"""AdamW with torch's own second moment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stabdiag.zoo.groups import decayed
from stabdiag.zoo.optimizer import optimizer


@optimizer("adamw-999", beta2=0.999)
def make(parameters: Sequence[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(decayed(parameters, 0.1), lr=lr, betas=(0.9, 0.999))
