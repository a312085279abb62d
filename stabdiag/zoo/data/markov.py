"""Text of a Zipf-Markov chain: each token has a few successors; half of the sequences repeat a piece of
themselves."""

from __future__ import annotations

import torch

from stabdiag.zoo.data.generator import generator
from stabdiag.zoo.training import Batch, Batches

SUCCESSORS = 8


def markov(seed: int, batch: int, length: int, vocabulary: int, repeats: bool = True) -> Batches:
    """Inputs and next tokens, int64 [batch, length]."""
    world = generator(seed, 0)
    zipf = 1 / torch.arange(1, vocabulary + 1)
    following = torch.stack([torch.multinomial(zipf, SUCCESSORS, generator=world) for _ in range(vocabulary)])
    chances = 1 / torch.arange(1, SUCCESSORS + 1)

    def take(index: int) -> Batch:
        source = generator(seed, index + 1)
        choices = torch.multinomial(chances, batch * length, replacement=True, generator=source)
        choices = choices.view(batch, length)
        tokens = torch.empty(batch, length + 1, dtype=torch.long)
        tokens[:, 0] = torch.randint(vocabulary, (batch,), generator=source)
        for t in range(length):
            tokens[:, t + 1] = following[tokens[:, t], choices[:, t]]
        if repeats:
            piece = length // 3
            tokens[: batch // 2, -piece:] = tokens[: batch // 2, 1 : piece + 1]
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    return take
