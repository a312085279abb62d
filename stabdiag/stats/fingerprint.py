"""A short fingerprint of a tensor, by which a batch is found again."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from stabdiag.stats.sample import strided

Integers = TypeVar("Integers", torch.Tensor, NDArray[np.int64], int)

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
    return print_of(mixture(sample_of(tensor))).to(torch.float32)


def sample_of(tensor: torch.Tensor) -> torch.Tensor:
    """The elements that the fingerprint is of, flat and contiguous."""
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return strided(tensor, SAMPLE).contiguous()


def mixture(sample: torch.Tensor) -> torch.Tensor:
    """All that the fingerprint needs of a sample: int64, 0-d."""
    if sample.is_floating_point():
        sample = sample.view(INTEGER_OF_WIDTH[sample.element_size()])
    factors = _multipliers(sample.numel(), sample.device)
    return torch.addcmul(factors, sample.to(torch.int64), factors).sum()


def fingerprint_on_host(sample: NDArray[Any]) -> int:
    """The fingerprint of a tensor whose sample is these integers, at a tenth of the price of asking torch."""
    words = sample.astype(np.int64)
    words += 1
    return print_of(int(np.dot(words, _multipliers_on_host(sample.size))))


@lru_cache(maxsize=8)
def _multipliers_on_host(count: int) -> NDArray[np.int64]:
    return _multipliers(count, torch.device("cpu")).numpy()


def print_of(mixture: Integers) -> Integers:
    """The fingerprint of a mixture, or of an array of them."""
    # All 64 bits take part: round numbers in float64 differ in the highest ones only.
    folded: Integers = (mixture ^ (mixture >> BITS) ^ (mixture >> 2 * BITS)) & (2**BITS - 1)
    return folded


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of all bits of `tensor`, taken as words of 64 and wrapped around: int64, 0-d, on its device.

    Integers add up exactly in any order, so equal memory has equal sums on any machine, and no change of
    one word goes unseen. Costs one pass over the memory; what is not dense or not aligned is
    copied first.
    """
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if torch.ops.aten.is_non_overlapping_and_dense(tensor):
        flat = tensor.as_strided((tensor.numel(),), (1,))
    else:
        flat = tensor.contiguous().view(-1)
    words = flat.view(INTEGER_OF_WIDTH[flat.element_size()])
    in_word = 8 // words.element_size()
    whole = words.numel() // in_word * in_word
    if words.storage_offset() % in_word:
        words = words.clone()
    total: torch.Tensor = words[:whole].view(torch.int64).sum()
    return total if whole == words.numel() else total + words[whole:].sum(dtype=torch.int64)


def folded(checksums: torch.Tensor) -> torch.Tensor:
    """Checksums as integers below 2**24 in float32. Different ones differ but for one chance in 2**24."""
    mixed = (checksums + 1) * 0x2545F4914F6CDD1D  # odd (Vigna 2016): low bits reach the high ones
    mixed = mixed ^ (mixed >> 32)
    kept: torch.Tensor = (mixed ^ (mixed >> BITS)) & (2**BITS - 1)
    return kept.to(torch.float32)
