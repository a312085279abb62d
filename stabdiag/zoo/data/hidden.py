"""Tokens of a hidden Markov model: a state that none sees lasts for a while, and has tokens of its own that
come more often."""

from __future__ import annotations

import torch

from stabdiag.zoo.data.generator import generator
from stabdiag.zoo.training import Batch, Batches

STATES, CHANGES = 6, 0.08
"""Number of states, and the chance that a token is the first of a new one."""


def hidden(seed: int, batch: int, length: int, vocabulary: int) -> Batches:
    """Inputs and next tokens, int64 [batch, length]."""
    world = generator(seed, 0)
    emission = (2.5 * torch.randn(STATES, vocabulary, generator=world)).softmax(-1)

    def take(index: int) -> Batch:
        source = generator(seed, index + 1)
        changes = torch.rand(batch, length + 1, generator=source) < CHANGES
        drawn = torch.randint(STATES, (batch, length + 1), generator=source)
        last = torch.where(changes, torch.arange(length + 1), 0).cummax(1).values
        states = drawn.gather(1, last)
        tokens = torch.multinomial(emission[states.flatten()], 1, generator=source).view(batch, length + 1)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    return take
