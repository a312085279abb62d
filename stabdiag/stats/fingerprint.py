"""A short fingerprint of a tensor, by which a batch is found again."""

from __future__ import annotations

from functools import lru_cache

import torch

from stabdiag.stats.sample import strided

SAMPLE = 4096
BITS = 24  # the integers that a float32 holds exactly
INTEGER_OF_WIDTH = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@lru_cache(maxsize=8)
def _multipliers(count: int, device: torch.device) -> torch.Tensor:
    # Knuth's multiplicative hashing, one odd factor a position, so that order matters.
    position = torch.arange(1, count + 1, dtype=torch.int64, device=device)
    return position * 2654435761 | 1


def fingerprint(tensor: torch.Tensor) -> torch.Tensor:
    """An integer below 2**24 as a 0-d float32 tensor on the tensor's device; no synchronisation.

    It is a function of the bits of up to a few thousand evenly spaced elements and of their places:
    equal tensors agree, different ones differ but for one chance in 2**24.
    """
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    sample = strided(tensor, SAMPLE).contiguous()
    if sample.is_floating_point():
        sample = sample.view(INTEGER_OF_WIDTH[sample.element_size()])
    mixed = (sample.to(torch.int64) + 1) * _multipliers(sample.numel(), sample.device)
    total = mixed.sum()
    # All 64 bits take part: round numbers in float64 differ in the highest ones only.
    folded: torch.Tensor = (total ^ (total >> BITS) ^ (total >> 2 * BITS)) & (2**BITS - 1)
    return folded.to(torch.float32)
