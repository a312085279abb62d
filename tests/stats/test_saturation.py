from __future__ import annotations

import pytest
import torch

from stabdiag.stats.saturation import saturation


def flat(function, x: torch.Tensor) -> torch.Tensor:
    """Where the slope, by autograd in float64, is below a hundredth of that at zero."""
    x = x.double().requires_grad_(True)
    (slope,) = torch.autograd.grad(function(x).sum(), x)
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (steepest,) = torch.autograd.grad(function(zero).sum(), zero)
    return slope < 0.01 * steepest


@pytest.mark.parametrize(("function", "low"), [(torch.tanh, -1.0), (torch.sigmoid, 0.0)])
def test_share_and_units_are_those_of_the_slope(function, low):
    torch.manual_seed(0)
    x = torch.randn(64, 24) * torch.logspace(-1, 2, 24)
    expected = flat(function, x)
    share, units = saturation(function(x), low, 1.0).tolist()
    assert share == pytest.approx(expected.double().mean().item(), abs=1e-6)
    assert units == pytest.approx((expected.double().mean(0) > 0.5).double().mean().item())
    assert 0 < units < 1


def test_units_of_images_are_their_channels():
    x = torch.zeros(4, 3, 5, 5)
    x[:, 1] = 20.0
    assert saturation(torch.tanh(x), -1.0, 1.0).tolist() == pytest.approx([1 / 3, 1 / 3])
