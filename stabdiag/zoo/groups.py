"""Parameter groups as trainers make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


def decayed(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices with weight decay, biases and gains of norms without."""
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
