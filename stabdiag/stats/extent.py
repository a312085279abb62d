"""The largest magnitude of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from stabdiag.stats.family import Rows, Sizes


def extremes(tensor: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> None:
    """Writes the smallest and the largest element into 0-d float32 tensors; a NaN is both."""
    if tensor.dtype == torch.float32:
        torch.aminmax(tensor, out=(low, high))
    else:
        smallest, largest = torch.aminmax(tensor)
        low.copy_(smallest)
        high.copy_(largest)


class Extent:
    """`absmax`, for where the norm is taken of all tensors at once."""

    width = 2
    merge = (np.minimum, np.maximum)
    identity = (np.inf, -np.inf)

    def measure(self, tensor: torch.Tensor, out: Sequence[torch.Tensor]) -> None:
        extremes(tensor, *out)

    def lift(self, measured: Rows, sizes: Sizes) -> Rows:
        return measured

    def finish(self, merged: Rows) -> dict[str, Rows]:
        low, high = merged.T
        absmax = np.maximum(np.abs(low), np.abs(high))
        never = (low == np.inf) & (high == -np.inf)
        return {"absmax": np.where(never, np.nan, absmax).astype(np.float32)}
