from __future__ import annotations

import numpy as np
import pytest
import torch

from stabdiag.capture.transfer import HostCopy


def test_tensors_of_any_shape_and_type_come_over_as_float32():
    tensors = {
        "scalar": torch.tensor(2.5),
        "matrix": torch.arange(6.0).reshape(2, 3).mT,
        "half": torch.tensor([0.5, 1.0], dtype=torch.bfloat16),
        "double": torch.tensor([1e60, 1.0], dtype=torch.float64),
        "none": torch.zeros(0, 3),
        "trained": torch.ones(2, requires_grad=True),
    }
    arrays = HostCopy(tensors).arrays()
    assert set(arrays) == set(tensors)
    for name, array in arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, tensors[name].detach().float().numpy(), err_msg=name)


@pytest.mark.parametrize("others", [0, 1])
def test_what_is_written_afterwards_does_not_show(others):
    tensor = torch.ones(3)
    copy = HostCopy({"a": tensor, **{str(i): torch.zeros(1) for i in range(others)}})
    tensor.fill_(7)
    assert copy.arrays()["a"].tolist() == [1, 1, 1]
    assert not copy.asynchronous


def test_nothing_is_no_trouble():
    assert HostCopy({}).arrays() == {}
