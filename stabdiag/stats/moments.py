"""Range, moments and exact zeros of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from stabdiag.stats.extent import extremes
from stabdiag.stats.family import Rows, Sizes

SAMPLE = 4096


class Moments:
    """`min`, `max`, `absmax`, `mean`, `rms`, `zeros`, `nonfinite`.

    The range is that of all elements; of tensors above 4,096 elements the mean, the root mean square and
    the share of exact zeros are those of as many: each further pass over all of them costs as much as the
    range. `nonfinite` counts the merged tensors that held a NaN or an infinity: aminmax lets both
    through, and asking every element costs twenty times as much. Root mean squares merge by hypot, which
    cannot overflow where a sum of squares would.
    """

    width = 2
    sample = SAMPLE
    merge = (np.minimum, np.maximum, np.add, np.hypot, np.add, np.add, np.add)
    identity = (np.inf, -np.inf, 0.0, 0.0, 0.0, 0.0, 0.0)

    def measure(self, tensor: torch.Tensor, out: Sequence[torch.Tensor]) -> None:
        extremes(tensor, *out)

    def reduce(self, samples: torch.Tensor) -> torch.Tensor:
        norm = torch.linalg.vector_norm
        return torch.stack([samples.sum(1), norm(samples, dim=1), norm(samples, 0, dim=1)], dim=1)

    def lift(self, measured: Rows, sizes: Sizes) -> Rows:
        low, high, total, norm, nonzero = measured.T
        nonfinite = ~(np.isfinite(low) & np.isfinite(high))
        more = sizes / np.minimum(sizes, SAMPLE)
        estimated = total * more, norm * np.sqrt(more), sizes - nonzero * more
        return np.stack([low, high, *estimated, sizes, nonfinite], axis=1, dtype=np.float32)

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
