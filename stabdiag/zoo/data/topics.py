"""Sequences about topics: each topic has tokens of its own that come more often, and an order in which they
come."""

from __future__ import annotations

import torch

from stabdiag.zoo.data.generator import generator
from stabdiag.zoo.training import Batch, Batches

EMPHASIS = 1.0


def topics(seed: int, batch: int, length: int, vocabulary: int, classes: int) -> Batches:
    """Tokens int64 [batch, length] and their topics int64 [batch]."""
    world = generator(seed, 0)
    frequency = (EMPHASIS * torch.randn(classes, vocabulary, generator=world)).softmax(-1)

    def take(index: int) -> Batch:
        source = generator(seed, index + 1)
        topic = torch.randint(classes, (batch,), generator=source)
        tokens = torch.multinomial(frequency[topic], length, replacement=True, generator=source)
        # In the even topics the second half is sorted: the order tells something too.
        rows = topic % 2 == 0
        tokens[rows, length // 2 :] = tokens[rows, length // 2 :].sort(dim=1).values
        return tokens, topic

    return take
