"""Pictures that are more or less drowned in noise, and the noise (Ho et al. 2020, arXiv 2006.11239)."""

from __future__ import annotations

import torch

from stabdiag.zoo.data.generator import generator
from stabdiag.zoo.training import Batch, Batches

TIMES = 1000


def diffused(pictures: Batches, seed: int) -> Batches:
    """Noised pictures [batch, …], their times int64 [batch] and the noise that is in them, of the same
    shape."""
    kept = (1 - torch.linspace(1e-4, 0.02, TIMES)).cumprod(0)

    def take(index: int) -> Batch:
        source = generator(seed + 1, index + 1)
        clean = pictures(index)[0]
        times = torch.randint(TIMES, (len(clean),), generator=source)
        noise = torch.randn(clean.shape, generator=source)
        share = kept[times].view(-1, *[1] * (clean.dim() - 1))
        return share.sqrt() * clean + (1 - share).sqrt() * noise, times, noise

    return take
