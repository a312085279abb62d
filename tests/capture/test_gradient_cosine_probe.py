from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from stabdiag.capture.probes.gradient_cosine import GradientCosineProbe
from stabdiag.core.tier import Tier


def fit(watch, make, steps=6, sizes=(6, 9), **options):
    """Trains, and returns the recording and all gradients, flat in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.Tanh(), nn.Linear(sizes[1], 2))
    optimizer, seen = make(model.parameters()), []
    with watch(model, optimizer, **options) as recording:
        for _ in range(steps):
            optimizer.zero_grad()
            (model(torch.randn(8, sizes[0])) - 1).square().mean().backward()
            optimizer.step()
            seen.append(torch.cat([p.grad.double().flatten() for p in model.parameters()]))
    return recording, seen


def measured(recording):
    return recording.run.table("run.grad_cosine").first()


@pytest.mark.parametrize("make", [torch.optim.Adam, lambda p: torch.optim.SGD(p, lr=0.1), torch.optim.Rprop])
def test_it_is_the_cosine_of_two_gradients_in_a_row_whatever_the_optimizer(watch, healthy, make):
    recording, seen = fit(watch, make)
    healthy(recording.run)
    expected = [cosine_similarity(a, b, dim=0).item() for a, b in zip(seen[1:], seen, strict=False)]
    assert np.isnan(measured(recording)[0])
    np.testing.assert_allclose(measured(recording)[1:], expected, rtol=1e-4, atol=1e-5)


def test_it_is_known_after_each_step_that_is_recorded_whole(watch):
    recording, _ = fit(watch, torch.optim.Adam, steps=30, every=10)
    known = np.flatnonzero(np.isfinite(measured(recording)))
    assert known.tolist() == [1, 2, 3, 4, 5, 11, 21]


def test_of_large_tensors_a_sample_tells_the_cosine_of_the_whole(watch):
    recording, seen = fit(watch, torch.optim.Adam, sizes=(128, 256))
    expected = [cosine_similarity(a, b, dim=0).item() for a, b in zip(seen[1:], seen, strict=False)]
    np.testing.assert_allclose(measured(recording)[1:], expected, atol=0.1)


def test_a_parameter_without_a_gradient_in_one_of_the_two_steps_is_left_out(watch, healthy):
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for step in range(4):
            optimizer.zero_grad()
            hidden = model[0](torch.ones(2, 4))
            (model[1](hidden) if step % 2 else hidden).square().sum().backward()
            optimizer.step()
    healthy(recording.run)
    assert np.isfinite(measured(recording)[1:]).all()


def test_steps_with_one_between_that_was_not_seen_are_not_in_a_row():
    weight = torch.ones(3, requires_grad=True)
    weight.grad = torch.ones(3)
    for between, known in ((Tier.FAST, True), (Tier.NONE, False)):
        probe = GradientCosineProbe(SimpleNamespace(parameters=[weight]))
        probe.arm(Tier.STANDARD)
        probe.on_step_end(None, [0])
        probe.arm(between)
        if between >= probe.tier:
            probe.on_step_end(None, [0])
            assert (probe.harvest() is not None) is known
        probe.arm(Tier.FAST)
        probe.on_step_end(None, [0])
        assert probe.harvest() is None
