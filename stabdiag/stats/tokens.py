"""How much the tokens of a sequence differ from each other."""

from __future__ import annotations

import torch

STATISTICS = ("cosine", "spread", "rank")
SEQUENCES, TOKENS, CHANNELS = 4, 64, 1024


def sampled(values: torch.Tensor) -> torch.Tensor:
    """At most 4 sequences, 64 tokens and 1,024 channels of [sequences, tokens, channels], evenly spaced."""
    for dim, most in enumerate((SEQUENCES, TOKENS, CHANNELS)):
        index = [slice(None)] * dim + [slice(None, None, -(-values.shape[dim] // most))]
        values = values[tuple(index)]
    return values


def token_statistics(tokens: torch.Tensor) -> torch.Tensor:
    """Of [sequences, tokens, channels]: float32 [3] on its device. Vectors of zeros (padding) are left out.

    cosine  mean cosine between two tokens of a sequence
    spread  share of a channel's mean square that differs between the tokens of a sequence; the median
            over channels, so that a few huge channels, the same at every token, do not decide: 0 where
            all tokens are one, 1 where their mean is zero
    rank    participation ratio of the eigenvalues of the tokens' cosine matrix: 1 where all are parallel,
            the number of tokens where all are orthogonal
    """
    tokens = tokens.to(torch.float32)
    length = torch.linalg.vector_norm(tokens, dim=2, keepdim=True)
    there = (length > 0).to(torch.float32)
    unit = tokens / torch.where(length > 0, length, torch.ones_like(length))
    count = there.sum((1, 2))
    cosines = unit @ unit.transpose(1, 2)
    cosine = (cosines.sum((1, 2)) - count) / (count * (count - 1))
    rank = count.square() / cosines.square().sum((1, 2))
    number = count[:, None].clamp_min(1.0)
    square = tokens.square().sum(1) / number
    mean = tokens.sum(1) / number
    within = (square - mean.square()).clamp_min(0.0).mean(0) / square.mean(0)
    return torch.stack([cosine.nanmean(), within.nanmedian(), rank.nanmean()])
