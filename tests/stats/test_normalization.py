from __future__ import annotations

import pytest
import torch
from torch import nn

from stabdiag.stats.normalization import STATISTICS, batch_statistics, row_headroom


@pytest.mark.parametrize("shape", [(64, 8), (16, 8, 5, 5)])
def test_mismatch_is_how_far_evaluation_is_from_training(shape):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8) if len(shape) == 2 else nn.BatchNorm2d(8)
    norm = norm.double()
    norm.running_mean += torch.linspace(-1, 1, 8)
    norm.running_var *= torch.linspace(0.5, 9, 8)
    x = torch.randn(shape, dtype=torch.float64) * 2 + 1
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    found = batch_statistics(x.float(), mean.float(), variance.float(), norm.eps).tolist()
    norm.eval()
    evaluated = norm(x)
    norm.train()
    dims = [d for d in range(x.dim()) if d != 1]
    expected = (norm(x) - evaluated).square().mean(dims).sqrt().median().item()
    assert dict(zip(STATISTICS, found, strict=True)) == {
        "mismatch": pytest.approx(expected, rel=1e-4),
        "variance_ratio": pytest.approx((variance / x.var(dims, correction=0)).median().item(), rel=0.3),
        "headroom": pytest.approx(x.var(dims, correction=0).median().item() / norm.eps, rel=1e-4),
    }


def test_a_sample_of_large_images_sees_all_their_columns():
    torch.manual_seed(0)
    images = torch.randn(128, 2, 16, 16)
    images[..., 0] = 0.0  # as padding leaves borders
    mean, variance = images.mean((0, 2, 3)), images.var((0, 2, 3), correction=0)
    mismatch, ratio, _ = batch_statistics(images, mean, variance, 1e-5).tolist()
    assert mismatch < 0.06
    assert ratio == pytest.approx(1.0, abs=0.06)


def test_without_running_statistics_there_is_nothing_to_compare():
    found = batch_statistics(torch.randn(64, 8), None, None, 1e-5)
    assert found[:2].isnan().all()
    assert found[2] > 1e4


def test_headroom_of_rows_is_variance_or_mean_square_over_eps():
    torch.manual_seed(0)
    x = (torch.randn(10, 6, 4, 8) + 3) * torch.rand(10, 6, 1, 1)
    rows = x.double().flatten(-2)
    variance, square = rows.var(-1, correction=0).median(), rows.square().mean(-1).median()
    assert row_headroom(x, 2, 1e-3, centred=True).item() == pytest.approx(variance.item() / 1e-3, rel=1e-4)
    assert row_headroom(x, 2, 1e-3, centred=False).item() == pytest.approx(square.item() / 1e-3, rel=1e-4)
