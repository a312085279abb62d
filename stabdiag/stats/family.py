"""What a family of statistics is: a commutative monoid with a lift before and a finish after.

`measure` reduces one tensor to a short vector on its device, and `reduce` the samples of many tensors at
once; `lift` makes partials of the two on the host; partials of micro-batches, shards and ranks merge
element by element; `finish` turns merged partials into named statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Sizes = NDArray[np.int64]


class Family(Protocol):
    """`merge` has one associative, commutative ufunc a partial, and `identity` its neutral element."""

    @property
    def width(self) -> int: ...

    @property
    def sample(self) -> int:
        """Elements of each tensor that `reduce` is to have; 0 where it is not wanted."""

    @property
    def merge(self) -> tuple[Any, ...]: ...

    @property
    def identity(self) -> tuple[float, ...]: ...

    def measure(self, tensor: torch.Tensor, out: Sequence[torch.Tensor]) -> None:
        """Writes `width` numbers about `tensor` (real floating, at least one element) into 0-d float32
        tensors, without a synchronisation."""

    def reduce(self, samples: torch.Tensor) -> torch.Tensor:
        """float32 [n, sample] of n tensors, zeros after the elements of smaller ones -> [n, more]: sums of
        each, which `lift` finds behind what was measured."""

    def lift(self, measured: Rows, sizes: Sizes) -> Rows:
        """[n, width + more] of tensors of `sizes` elements -> partials [n, len(merge)]."""

    def finish(self, merged: Rows) -> dict[str, Rows]:
        """[sites, partials] -> statistic: [sites]; rows of the identity (never measured) become NaN."""


def merge(family: Family, sites: NDArray[np.int64], partials: Rows, count: int) -> Rows:
    """Merges rows [n, partials], each of site `sites[n]`, into [count, partials]."""
    merged = np.tile(np.array(family.identity, np.float32), (count, 1))
    for column, ufunc in enumerate(family.merge):
        ufunc.at(merged[:, column], sites, partials[:, column])
    return merged
