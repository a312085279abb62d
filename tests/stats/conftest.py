from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from stabdiag.capture.partials import PartialLog
from stabdiag.stats.family import Family, Rows

Measure = Callable[..., dict[str, Rows]]


@pytest.fixture
def measure() -> Measure:
    """The statistics of tensors as a recorder takes them: [sites] of each, for tensors of given sites."""

    def statistics(family: Family, *tensors: torch.Tensor, sites=None, count: int = 1) -> dict[str, Rows]:
        log = PartialLog(family)
        for site, tensor in zip([0] * len(tensors) if sites is None else sites, tensors, strict=True):
            log.add(site, tensor)
        taken = log.harvest()
        with np.errstate(all="ignore"):  # as the recorder does, for which such numbers are the point
            return taken.columns({device: rows.numpy() for device, rows in taken.rows.items()}, count)

    return statistics
