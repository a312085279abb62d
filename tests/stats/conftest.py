from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from stabdiag.stats.family import Family, Rows, merge

Measure = Callable[..., dict[str, Rows]]


@pytest.fixture
def measure() -> Measure:
    """The statistics of tensors as a recorder takes them: [sites] of each, for tensors of given sites."""

    def statistics(family: Family, *tensors: torch.Tensor, sites=None, count: int = 1) -> dict[str, Rows]:
        raw = torch.zeros(len(tensors), family.width)
        for row, tensor in zip(raw, tensors, strict=True):
            family.measure(tensor, row.unbind())
        sizes = np.array([tensor.numel() for tensor in tensors], np.int64)
        owners = np.zeros(len(tensors), np.int64) if sites is None else np.array(sites, np.int64)
        with np.errstate(all="ignore"):  # as the recorder does, for which such numbers are the point
            return family.finish(merge(family, owners, family.lift(raw.numpy(), sizes), count))

    return statistics
