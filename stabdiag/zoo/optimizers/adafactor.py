"""Adafactor (Shazeer and Stern 2018, arXiv 1804.04235): a second moment of rows and columns, and steps in
shares of the weights' own size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stabdiag.zoo.optimizer import optimizer


@optimizer("adafactor", scale=12.0)
def make(parameters: Sequence[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(parameters, lr=lr)
