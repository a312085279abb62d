from __future__ import annotations

import pytest
import torch
from torch import nn

from stabdiag.stats.distribution import distribution_statistics


def test_outputs_and_their_gradients_are_described_in_slow_steps(watch, at, healthy):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for _ in range(21):
            optimizer.zero_grad()
            output = model(x := torch.randn(64, 4))
            hidden = model[0].forward(x).detach()
            output.square().mean().backward()
            optimizer.step()
            gradient = (2 * output / output.numel()).detach()
    healthy(recording.run)
    assert recording.run.table("distribution.q50").steps.tolist() == [10, 20]
    for site, kind, tensor in [("0", "distribution", hidden), ("2", "distribution_grad", gradient)]:
        expected = distribution_statistics(tensor.numpy().ravel())
        for name, value in expected.items():
            assert at(recording.run, f"{kind}.{name}", -1)[site] == pytest.approx(value, rel=1e-4, abs=1e-9)
        assert at(recording.run, f"{kind}.nonfinite", -1)[site] == 0
