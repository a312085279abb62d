"""How a router spreads tokens over experts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def routing(chosen: torch.Tensor, experts: int, scores: torch.Tensor | None) -> torch.Tensor:
    """One call of a router: float32 [experts + 2] on the device of `chosen`, which adds up over calls.

    How often each expert was chosen; the sum over tokens of the entropy (nats) of their scores, scaled to
    sum to 1, and the number of these tokens. `chosen`: int64 of any shape; `scores`: [tokens, experts],
    not negative, None where they are not known.
    """
    counts = torch.zeros(experts + 2, device=chosen.device)
    places = chosen.flatten()
    counts.scatter_add_(0, places, torch.ones(1, device=chosen.device).expand(places.shape))
    if scores is not None:
        scores = scores.to(torch.float32)
        shares = scores / scores.sum(1, keepdim=True)
        counts[experts] = torch.special.entr(shares).sum()
        counts[experts + 1] = len(scores)
    return counts


def routing_statistics(summed: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """The load of each expert [experts], as a share of all choices, and the mean entropy (nats); NaN where
    it is not known."""
    choices, (entropy, tokens) = summed[:-2], summed[-2:]
    return choices / max(float(choices.sum()), 1.0), float(entropy / tokens) if tokens else float("nan")
