"""Fewer points of the same curve, without losing a spike or a non-finite value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def downsample(values: NDArray[np.floating], limit: int) -> NDArray[np.intp]:
    """Increasing indices of at most `limit` (>= 5) of `values`, shape [n], NaN and inf welcome.

    The first and the last point stay, and of each of (limit - 2) // 3 equal stretches the lowest and
    the highest finite value and the first non-finite one: the global extremes are always among them,
    and no stretch that held a NaN looks whole.
    """
    length = len(values)
    if length <= limit:
        return np.arange(length)
    buckets = (limit - 2) // 3
    width = -(-length // buckets)
    inside = np.arange(buckets * width).reshape(buckets, width) < length
    padded = np.zeros(buckets * width)
    padded[:length] = values
    grid = padded.reshape(buckets, width)
    finite = np.isfinite(grid) & inside
    broken = inside & ~finite
    lowest = np.where(finite, grid, np.inf).argmin(axis=1)
    highest = np.where(finite, grid, -np.inf).argmax(axis=1)
    start = np.arange(buckets) * width
    has_finite, has_broken = finite.any(axis=1), broken.any(axis=1)
    chosen = [
        (start + lowest)[has_finite],
        (start + highest)[has_finite],
        (start + broken.argmax(axis=1))[has_broken],
        np.array([0, length - 1]),
    ]
    return np.unique(np.concatenate(chosen))


def spans_decades(values: NDArray[np.floating]) -> bool:
    """True where a logarithmic axis shows more: all finite values positive, over two decades."""
    finite = values[np.isfinite(values)]
    return bool(len(finite)) and bool(finite.min() > 0) and bool(finite.max() / finite.min() >= 100)
