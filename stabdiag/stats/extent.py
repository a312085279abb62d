"""The largest magnitude of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from stabdiag.stats.family import Rows, Sizes


class Extent:
    """`absmax`: what Moments gives of range, where the norm is taken for all tensors at once."""

    width = 2
    merge = (np.minimum, np.maximum)
    identity = (np.inf, -np.inf)

    def measure(self, tensor: torch.Tensor, out: Sequence[torch.Tensor]) -> None:
        low, high = out
        if tensor.dtype == torch.float32:
            torch.aminmax(tensor, out=(low, high))
        else:
            smallest, largest = torch.aminmax(tensor)
            low.copy_(smallest)
            high.copy_(largest)

    def lift(self, measured: Rows, sizes: Sizes) -> Rows:
        return measured

    def finish(self, merged: Rows) -> dict[str, Rows]:
        low, high = merged.T
        absmax = np.maximum(np.abs(low), np.abs(high))
        never = (low == np.inf) & (high == -np.inf)
        return {"absmax": np.where(never, np.nan, absmax).astype(np.float32)}
