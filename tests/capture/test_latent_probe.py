from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

WAYS = ["log variance", "joint", "log deviation", "softplus", "distributions", "clamped", "free bits"]


class Autoencoder(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.enc, self.dec = way, nn.Linear(12, 16), nn.Linear(4, 12)
        self.mean, self.scale, self.both = nn.Linear(16, 4), nn.Linear(16, 4), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = F.relu(self.enc(x))
        mean, raw = (self.mean(hidden), self.scale(hidden))
        if self.way == "joint":
            mean, raw = self.both(hidden).chunk(2, -1)
        if self.way == "clamped":
            raw = raw.clamp(-10, 10)
        deviation = (0.5 * raw).exp()
        divergence = -0.5 * (1 + raw - mean.pow(2) - raw.exp())
        if self.way == "log deviation":
            deviation = raw.exp()
            divergence = 0.5 * (mean * mean + (2 * raw).exp()) - raw - 0.5
        elif self.way == "softplus":
            deviation = F.softplus(raw)
            divergence = 0.5 * (mean**2 + deviation**2) - deviation.log() - 0.5
        elif self.way == "distributions":
            prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
            divergence = kl_divergence(Normal(mean, deviation), prior)
        sample = mean + deviation * torch.randn_like(mean)
        return self.dec(sample), divergence, mean.detach(), deviation.detach()


@pytest.mark.parametrize("way", WAYS)
def test_a_posterior_is_found_however_it_is_written(watch, at, healthy, way):
    model = Autoencoder(way)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(32, 12)
    with watch(model, optimizer) as recording:
        made, divergence, mean, deviation = model(x)
        term = divergence.mean(0).clamp(min=0.1).sum() if way == "free bits" else divergence.sum(1).mean()
        (((made - x) ** 2).sum(1).mean() + 0.3 * term).backward()
        optimizer.step()
    healthy(recording.run)
    prior = Normal(torch.zeros(4).double(), torch.ones(4).double())
    expected = kl_divergence(Normal(mean.double(), deviation.double()), prior).mean(0)
    name = "both" if way == "joint" else "mean"
    assert at(recording.run, "latent.kl") == {name: pytest.approx(expected.sum().item(), rel=1e-4)}
    assert at(recording.run, "latent.active")[name] == pytest.approx((expected > 0.05).double().mean().item())


def test_a_regression_with_a_predicted_variance_has_no_posterior(watch):
    model = nn.Linear(12, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        x = torch.randn(32, 12)
        mean, log = model(x).chunk(2, -1)
        (0.5 * (log + (x[:, :4] - mean) ** 2 / log.exp())).mean().backward()
        optimizer.step()
    assert "latent.kl" not in recording.run


def test_weight_penalties_and_exponentials_are_no_posterior(watch):
    model = nn.Linear(12, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        out = model(torch.randn(32, 12))
        (out.exp().mean() + out.square().mean() + model.weight.square().sum()).backward()
        optimizer.step()
    assert "latent.kl" not in recording.run
