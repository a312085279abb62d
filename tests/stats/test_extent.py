from __future__ import annotations

import pytest
import torch

from stabdiag.stats.extent import largest_magnitudes

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_each_tensor_has_its_largest_magnitude(dtype, device):
    values = [[-3.0, 2.0], [1.0, 2.5], [0.0], [[-0.5, -4.0]]]
    tensors = [torch.tensor(value, dtype=dtype).mT if i == 3 else torch.tensor(value, dtype=dtype)
               for i, value in enumerate(values)]  # fmt: skip
    got = largest_magnitudes([tensor.to(device) for tensor in tensors])
    assert got.dtype is torch.float32
    assert got.tolist() == [tensor.double().abs().max().item() for tensor in tensors]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows_in_its_tensor_alone(odd, device):
    got = largest_magnitudes([torch.tensor([1.0, odd, 2.0], device=device), torch.ones(2, device=device)])
    assert torch.isfinite(got).tolist() == [False, True]
