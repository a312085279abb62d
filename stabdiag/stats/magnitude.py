"""How large the elements of a tensor are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from stabdiag.stats.extent import extremes
from stabdiag.stats.family import Rows, Sizes


def norm(tensor: torch.Tensor, out: torch.Tensor) -> None:
    """Writes the Euclidean norm into a 0-d float32 tensor."""
    if tensor.device.type == "cpu" and tensor.dtype is torch.float32 and tensor.is_contiguous():
        flat = tensor.view(-1)
        torch.dot(flat, flat, out=out).sqrt_()  # two thirds of the time of torch's own norm
    elif tensor.dtype is torch.float64:
        out.copy_(torch.linalg.vector_norm(tensor))
    else:
        torch.linalg.vector_norm(tensor, dtype=torch.float32, out=out)


class Magnitude:
    """`absmax`, `norm`, `rms`, `nonfinite`, of all elements.

    Not of a sample: gradients with respect to outputs are often zero at all places but a few, as where
    the loss is of one token of a sequence. `nonfinite` counts the merged tensors that held a NaN or an
    infinity. Norms merge by hypot, which cannot overflow where a sum of squares would.
    """

    width = 3
    sample = 0
    merge = (np.maximum, np.hypot, np.add, np.add)
    identity = (0.0, 0.0, 0.0, 0.0)

    def measure(self, tensor: torch.Tensor, out: Sequence[torch.Tensor]) -> None:
        extremes(tensor, *out[:2])
        norm(tensor, out[2])

    def reduce(self, samples: torch.Tensor) -> torch.Tensor:
        return samples

    def lift(self, measured: Rows, sizes: Sizes) -> Rows:
        low, high, length = measured.T
        absmax = np.maximum(np.abs(low), np.abs(high))
        return np.stack([absmax, length, sizes, ~np.isfinite(absmax)], axis=1, dtype=np.float32)

    def finish(self, merged: Rows) -> dict[str, Rows]:
        absmax, length, size, nonfinite = merged.T
        with np.errstate(divide="ignore", invalid="ignore"):
            rms = length / np.sqrt(size)
        statistics = {"absmax": absmax, "norm": length, "rms": rms, "nonfinite": nonfinite}
        return {
            name: np.where(size > 0, values, np.nan).astype(np.float32) for name, values in statistics.items()
        }
