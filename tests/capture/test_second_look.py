from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

STEP = 23


class LogOfMagnitude(nn.Module):
    """Infinite where an input is zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs().log()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.drop = nn.Dropout(0.2)
        self.risky = LogOfMagnitude()
        self.last = nn.Linear(8, 1)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        hidden = self.first(x)
        if bool((x == 0).all()):
            hidden = self.risky(hidden * 0)
        return self.last(self.drop(hidden))


def trained(watch=None, steps=STEP + 10, **options):
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    recording = watch(model, optimizer, **options) if watch else None
    for step in range(steps):
        optimizer.zero_grad()
        x = torch.randn(16, 4) if step != STEP else torch.zeros(16, 4)
        model(x).square().mean().backward()
        optimizer.step()
    if recording is not None:
        recording.close()
    state = [parameter.detach().clone() for parameter in model.parameters()]
    return recording, state, torch.get_rng_state(), model.calls


@pytest.mark.parametrize("cadence", [{"every": 1000}, {"every": None, "budget": 1e-9}])
def test_the_place_of_a_nonfinite_loss_is_known_at_any_step(watch, at, healthy, cadence):
    recording, *_ = trained(watch, **cadence)
    healthy(recording.run)
    outputs = recording.run.table("output.nonfinite")
    row = outputs.steps.tolist().index(STEP)
    bad = dict(zip(outputs.names, outputs.values[row].tolist(), strict=True))
    assert (bad["first"], bad["last"]) == (0, 1)
    assert any(e.step == STEP and "last" in e.data["sites"] for e in recording.run.events_of("nonfinite"))


@pytest.mark.parametrize("cadence", [{"every": 1000}, {"every": None, "budget": 1e-9}])
def test_the_batch_of_a_nonfinite_loss_is_known_at_any_step(watch, healthy, cadence):
    recording, *_ = trained(watch, **cadence)
    healthy(recording.run)
    batch = recording.run.table("batch.absmax")
    assert batch.first()[batch.steps.tolist().index(STEP)] == 0


def test_looking_again_leaves_no_trace(watch):
    _, weights, rng, calls = trained()
    _, watched, watched_rng, watched_calls = trained(watch, every=1000)
    assert calls == watched_calls
    assert torch.equal(rng, watched_rng)
    for one, other in zip(weights, watched, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_a_run_that_stays_lost_is_looked_at_once_in_fifty_steps(watch):
    recording, *_ = trained(watch, steps=STEP + 49, every=1000)
    recorded = recording.run.table("output.nonfinite").steps
    assert np.count_nonzero(recorded >= STEP) <= 12
