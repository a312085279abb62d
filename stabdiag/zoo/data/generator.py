"""A random number generator of its own for each batch."""

from __future__ import annotations

import torch

from stabdiag.zoo.training import Batches


def generator(seed: int, index: int) -> torch.Generator:
    """Held-out batches have negative numbers, so that none is ever trained on."""
    return torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**62)


def held_out(batches: Batches) -> Batches:
    """Batches of the same kind that no training sees."""
    return lambda index: batches(-2 - index)
