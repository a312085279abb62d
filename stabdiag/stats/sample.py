"""Views of a part of a large tensor, where a part answers the question as well."""

from __future__ import annotations

import torch

SLABS = 64


def stride_of(size: int, limit: int) -> int:
    """The odd stride that leaves at least `limit` of `size` elements.

    Odd, so that it does not lock onto one channel of a power-of-two layout.
    """
    stride = size // limit
    return stride - 1 + stride % 2 if stride > 2 else 1


def strided(tensor: torch.Tensor, limit: int) -> torch.Tensor:
    """At least `limit` elements (all, where there are fewer), evenly spaced, flat; a view where possible."""
    return tensor.reshape(-1)[:: stride_of(tensor.numel(), limit)]


def slabs(tensor: torch.Tensor, limit: int) -> torch.Tensor:
    """About `limit` elements in 64 evenly spaced slabs of memory, shape [64, limit / 64], as a view.

    A tensor that is no larger than `limit`, or has gaps in memory, comes back whole.
    """
    size = tensor.numel()
    if size <= limit or not (tensor.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(tensor)):
        return tensor
    width = limit // SLABS
    return tensor.as_strided((SLABS, width), ((size - width) // (SLABS - 1), 1))


def slab_places(size: int, limit: int, device: torch.device) -> torch.Tensor:
    """Where in a contiguous tensor of `size` elements the elements of `slabs` are, flat, as int64."""
    if size <= limit:
        return torch.arange(size, device=device)
    width = limit // SLABS
    first = torch.arange(SLABS, device=device) * ((size - width) // (SLABS - 1))
    return (first[:, None] + torch.arange(width, device=device)).flatten()
