from __future__ import annotations

import math

import pytest
import torch
from torch import nn


class RMSNorm(nn.Module):
    """As models write their own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(width)), 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon) * self.weight


def net(momentum: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(8, 16),
        nn.BatchNorm1d(16, momentum=momentum),
        nn.LayerNorm(16),
        RMSNorm(16),
        nn.Linear(16, 1),
    )


def train(model, watch, steps, eval_mode=False):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    model.train(not eval_mode)
    with watch(model, optimizer) as recording:
        for _ in range(steps):
            optimizer.zero_grad()
            model(5 * torch.randn(64, 8) + 3).square().mean().backward()
            optimizer.step()
    return recording.run


def test_statistics_that_follow_match_and_those_that_do_not_do_not(watch, at, healthy):
    follows, lags = (train(net(m), watch, 40) for m in (0.1, 0.001))
    healthy(follows)
    assert at(follows, "normalization.mismatch", -1)["1"] < 0.3
    assert at(lags, "normalization.mismatch", -1)["1"] > 1.0
    assert at(lags, "normalization.values", -1)["1"] == at(lags, "normalization.items", -1)["1"] == 64


def test_headroom_is_known_of_all_kinds(watch, at):
    room = at(train(net(0.1), watch, 1), "normalization.headroom")
    assert room["1"] > 1e4
    assert room["2"] == pytest.approx(1e5, rel=0.5)
    assert room["3"] == pytest.approx(1e6, rel=0.5)


def test_gains_are_those_before_the_first_step(watch, at):
    model = net(0.1)
    nn.init.constant_(model[2].weight[:4], 2.0)
    gains = at(train(model, watch, 1), "normalization.gain")
    assert gains == {"1": 1.0, "2": pytest.approx(2 / math.sqrt(1.75)), "3": 1.0}


def test_in_evaluation_mode_nothing_is_compared(watch, at):
    assert math.isnan(at(train(net(0.1), watch, 1, eval_mode=True), "normalization.mismatch")["1"])


def test_the_momentum_of_batch_normalization_is_recorded(watch, at):
    for given, told in ((0.1, 0.1), (0.001, 0.001), (None, 0.0)):
        momenta = at(train(net(given), watch, 1), "normalization.momentum")
        assert momenta["1"] == pytest.approx(told)
        assert math.isnan(momenta["2"])
