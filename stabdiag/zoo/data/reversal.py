"""Sequences of symbols, and the same backwards."""

from __future__ import annotations

import torch

from stabdiag.zoo.data.generator import generator
from stabdiag.zoo.training import Batch, Batches

START = 0


def reversal(seed: int, batch: int, length: int, symbols: int) -> Batches:
    """Sources, what the decoder sees, and what it has to say: int64 [batch, length]. Symbol 0 starts the
    answer."""

    def take(index: int) -> Batch:
        source = generator(seed, index + 1)
        given = torch.randint(1, symbols, (batch, length), generator=source)
        answer = given.flip(1)
        seen = torch.cat([torch.full((batch, 1), START), answer[:, :-1]], dim=1)
        return given, seen, answer

    return take
