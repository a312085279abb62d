from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from stabdiag.stats.latent import STATISTICS, latent_statistics


def test_the_divergence_is_that_of_torch_in_float64():
    torch.manual_seed(0)
    mean, variance = torch.randn(32, 4, 3), torch.rand(32, 4, 3) * 3
    mean[:, 0], variance[:, 0] = 0.0, 1.0
    found = dict(zip(STATISTICS, latent_statistics(mean, variance).tolist(), strict=True))
    prior = Normal(torch.zeros(12, dtype=torch.float64), torch.ones(12, dtype=torch.float64))
    posterior = Normal(mean.double().flatten(1), variance.double().sqrt().flatten(1))
    each = kl_divergence(posterior, prior).mean(0)
    assert found["kl"] == pytest.approx(each.sum().item(), rel=1e-5)
    assert found["kl_dim"] == pytest.approx(each.mean().item(), rel=1e-5)
    assert found["active"] == pytest.approx(9 / 12)
    assert found["max_log_variance"] == pytest.approx(variance.double().log().max().item(), rel=1e-5)
