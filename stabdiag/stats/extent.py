"""The largest magnitude of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def extremes(tensor: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> None:
    """Writes the smallest and the largest element into 0-d float32 tensors; a NaN is both."""
    if tensor.dtype == torch.float32:
        torch.aminmax(tensor, out=(low, high))
    else:
        smallest, largest = torch.aminmax(tensor)
        low.copy_(smallest)
        high.copy_(largest)


def largest_magnitudes(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """float32 [len(tensors)] on the device of the first; NaN where a tensor holds one."""
    if all(tensor.is_cuda for tensor in tensors):  # a few kernels for all of them; on the host it is slow
        norms = torch._foreach_norm(list(tensors), float("inf"))
        return torch.stack([norm.to(norms[0].device, torch.float32) for norm in norms])
    ends = [end for tensor in tensors for end in torch.aminmax(tensor)]
    side_by_side = torch.stack([end.to(ends[0].device, torch.float32) for end in ends])
    return side_by_side.view(-1, 2).abs().amax(1)
