"""How large the elements of a tensor are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from stabdiag.stats.extent import extremes
from stabdiag.stats.family import Rows, Sizes


class Magnitude:
    """`absmax`, `norm`, `rms`, `nonfinite`, of all elements.

    Not of a sample: gradients with respect to outputs are often zero at all places but a few, as where
    the loss is of one token of a sequence. `nonfinite` counts the merged tensors that held a NaN or an
    infinity. Norms merge by hypot, which cannot overflow where a sum of squares would.
    """

    width = 3
    merge = (np.maximum, np.hypot, np.add, np.add)
    identity = (0.0, 0.0, 0.0, 0.0)

    def measure(self, tensor: torch.Tensor, out: Sequence[torch.Tensor]) -> None:
        low, high, norm = out
        extremes(tensor, low, high)
        norm.copy_(torch.linalg.vector_norm(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32)))

    def lift(self, measured: Rows, sizes: Sizes) -> Rows:
        low, high, norm = measured.T
        absmax = np.maximum(np.abs(low), np.abs(high))
        return np.stack([absmax, norm, sizes, ~np.isfinite(absmax)], axis=1, dtype=np.float32)

    def finish(self, merged: Rows) -> dict[str, Rows]:
        absmax, norm, size, nonfinite = merged.T
        with np.errstate(divide="ignore", invalid="ignore"):
            statistics = {"absmax": absmax, "norm": norm, "rms": norm / np.sqrt(size), "nonfinite": nonfinite}
        return {
            name: np.where(size > 0, values, np.nan).astype(np.float32) for name, values in statistics.items()
        }
