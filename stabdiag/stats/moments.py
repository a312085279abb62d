"""Range, moments and exact zeros of a tensor: one pass each of aminmax, sum and norm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from stabdiag.stats.family import Rows, Sizes
from stabdiag.stats.sample import stride_of, strided

ZEROS_SAMPLE = 32768


class Moments:
    """`min`, `max`, `absmax`, `mean`, `rms`, `norm`, `zeros`, `nonfinite`.

    `zeros` is the share of exact zeros, of a sample where the tensor is large: counting costs as much
    as the three other passes together. `nonfinite` counts the merged tensors that held a NaN or an
    infinity: aminmax lets both through, and asking every element costs twenty times as much. Norms
    merge by hypot, which cannot overflow where a sum of squares would.
    """

    width = 5
    merge = (np.minimum, np.maximum, np.add, np.hypot, np.add, np.add, np.add)
    identity = (np.inf, -np.inf, 0.0, 0.0, 0.0, 0.0, 0.0)

    def measure(self, tensor: torch.Tensor, out: Sequence[torch.Tensor]) -> None:
        low, high, total, norm, nonzero = out
        if tensor.dtype == torch.float32:
            torch.aminmax(tensor, out=(low, high))
        else:
            smallest, largest = torch.aminmax(tensor)
            low.copy_(smallest)
            high.copy_(largest)
        wide = torch.promote_types(tensor.dtype, torch.float32)
        total.copy_(torch.sum(tensor, dtype=wide))
        norm.copy_(torch.linalg.vector_norm(tensor, dtype=wide))
        nonzero.copy_(torch.count_nonzero(strided(tensor, ZEROS_SAMPLE)))

    def lift(self, measured: Rows, sizes: Sizes) -> Rows:
        low, high, total, norm, nonzero = measured.T
        sampled = np.array([-(-size // stride_of(size, ZEROS_SAMPLE)) for size in sizes.tolist()])
        zeros = sizes * (1.0 - nonzero / sampled)
        nonfinite = ~(np.isfinite(low) & np.isfinite(high))
        return np.stack([low, high, total, norm, zeros, sizes, nonfinite], axis=1, dtype=np.float32)

    def finish(self, merged: Rows) -> dict[str, Rows]:
        low, high, total, norm, zeros, size, nonfinite = merged.T
        with np.errstate(divide="ignore", invalid="ignore"):
            statistics = {
                "min": low,
                "max": high,
                "absmax": np.maximum(np.abs(low), np.abs(high)),
                "mean": total / size,
                "rms": norm / np.sqrt(size),
                "norm": norm,
                "zeros": zeros / size,
                "nonfinite": nonfinite,
            }
        return {
            name: np.where(size > 0, values, np.nan).astype(np.float32) for name, values in statistics.items()
        }
