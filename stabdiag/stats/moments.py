"""Range, moments and exact zeros of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from stabdiag.stats.extent import extremes
from stabdiag.stats.family import Rows, Sizes
from stabdiag.stats.sample import slabs

SAMPLE = 8192


class Moments:
    """`min`, `max`, `absmax`, `mean`, `rms`, `zeros`, `nonfinite`.

    The range is that of all elements; of tensors above 8,192 elements the mean, the root mean square and
    the share of exact zeros are those of as many: each further pass over all of them costs as much as the
    range. `nonfinite` counts the merged tensors that held a NaN or an infinity: aminmax lets both
    through, and asking every element costs twenty times as much. Root mean squares merge by hypot, which
    cannot overflow where a sum of squares would.
    """

    width = 5
    merge = (np.minimum, np.maximum, np.add, np.hypot, np.add, np.add, np.add)
    identity = (np.inf, -np.inf, 0.0, 0.0, 0.0, 0.0, 0.0)

    def measure(self, tensor: torch.Tensor, out: Sequence[torch.Tensor]) -> None:
        low, high, mean, rms, nonzero = out
        extremes(tensor, low, high)
        sample = slabs(tensor, SAMPLE)
        wide = torch.promote_types(tensor.dtype, torch.float32)
        size = sample.numel()
        mean.copy_(torch.mean(sample, dtype=wide))
        rms.copy_(torch.linalg.vector_norm(sample, dtype=wide) / size**0.5)
        nonzero.copy_(torch.count_nonzero(sample) / size)

    def lift(self, measured: Rows, sizes: Sizes) -> Rows:
        low, high, mean, rms, nonzero = measured.T
        nonfinite = ~(np.isfinite(low) & np.isfinite(high))
        weighed = mean * sizes, rms * np.sqrt(sizes), (1.0 - nonzero) * sizes
        return np.stack([low, high, *weighed, sizes, nonfinite], axis=1, dtype=np.float32)

    def finish(self, merged: Rows) -> dict[str, Rows]:
        low, high, total, norm, zeros, size, nonfinite = merged.T
        with np.errstate(divide="ignore", invalid="ignore"):
            statistics = {
                "min": low,
                "max": high,
                "absmax": np.maximum(np.abs(low), np.abs(high)),
                "mean": total / size,
                "rms": norm / np.sqrt(size),
                "zeros": zeros / size,
                "nonfinite": nonfinite,
            }
        return {
            name: np.where(size > 0, values, np.nan).astype(np.float32) for name, values in statistics.items()
        }
