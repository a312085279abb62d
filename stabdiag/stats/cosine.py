"""The angle between two tensors that are known by samples of their parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray


def inner_products(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> torch.Tensor:
    """⟨a, a⟩, ⟨a, b⟩ and ⟨b, b⟩ of two lists of flat float32 tensors, each list end to end: float32 [3]."""
    a, b = torch.cat(list(first)), torch.cat(list(second))
    return torch.stack([a.dot(a), a.dot(b), b.dot(b)])


def cosine(products: NDArray[np.float32]) -> float:
    """From inner products, [3]; NaN where one of the two is zero."""
    own, inner, other = products.astype(np.float64)
    length = np.sqrt(own * other)
    return float(inner / length) if length > 0 else float("nan")
