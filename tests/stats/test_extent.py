from __future__ import annotations

import numpy as np
import pytest
import torch

from stabdiag.stats.extent import Extent


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("values", [[-3.0, 2.0], [1.0, 2.5], [0.0], [-0.5, -4.0]])
def test_absmax_is_the_largest_magnitude(measure, dtype, values):
    tensor = torch.tensor(values, dtype=dtype)
    assert measure(Extent(), tensor)["absmax"][0] == tensor.double().abs().max().item()


def test_parts_merge_to_the_whole_and_nothing_is_nan(measure):
    got = measure(Extent(), torch.tensor([1.0]), torch.tensor([[-7.0, 2.0]]).mT, sites=[1, 1], count=2)
    np.testing.assert_array_equal(got["absmax"], [np.nan, 7])


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows(measure, odd):
    assert not np.isfinite(measure(Extent(), torch.tensor([1.0, odd, 2.0]))["absmax"][0])
