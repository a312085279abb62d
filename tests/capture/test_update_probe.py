from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stabdiag.capture.probes.updates import SAMPLE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=True),
        lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
    ],
)
def test_small_tensors_are_compared_whole(watch, at, healthy, make, dtype):
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).to(dtype)
    optimizer = make(model.parameters())
    expected = []
    with watch(model, optimizer) as recording:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 5, dtype=dtype)).square().mean().backward()
            before = {n: p.detach().double().clone() for n, p in model.named_parameters()}
            optimizer.step()
            change = {n: p.detach().double() - before[n] for n, p in model.named_parameters()}
            expected.append(
                {n: (c.norm().item(), (c.norm() / before[n].norm()).item()) for n, c in change.items()}
            )
    healthy(recording.run)
    for step, names in enumerate(expected):
        norm, ratio = at(recording.run, "update.norm", step), at(recording.run, "update.ratio", step)
        for name, (change, relative) in names.items():
            assert norm[name] == pytest.approx(change, rel=1e-3)
            assert ratio[name] == pytest.approx(relative, rel=1e-3)
        assert set(at(recording.run, "update.nonfinite", step).values()) == {0}


def test_large_tensors_are_estimated(watch, at):
    model = nn.Linear(400, SAMPLE // 100)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with watch(model, optimizer) as recording:
        model(torch.randn(16, 400)).square().mean().backward()
        before = model.weight.detach().clone()
        optimizer.step()
    change = (model.weight.detach() - before).norm().item()
    assert at(recording.run, "update.norm")["weight"] == pytest.approx(change, rel=0.05)
    assert at(recording.run, "update.ratio")["weight"] == pytest.approx(
        change / before.norm().item(), rel=0.05
    )


def test_a_weight_that_is_zero_has_no_ratio(watch, at):
    model = nn.Linear(2, 2)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert np.isnan(at(recording.run, "update.ratio")["bias"])
    assert at(recording.run, "update.norm")["bias"] == pytest.approx(0.1 * 2**0.5)


def test_what_no_optimizer_steps_is_not_measured_and_a_non_finite_update_is(watch, at):
    model = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
    optimizer = torch.optim.SGD(model[0].parameters(), lr=float("inf"))
    with watch(model, optimizer) as recording:
        (model[0](torch.ones(1, 2)) + model[1](torch.ones(1, 2))).sum().backward()
        optimizer.step()
    nonfinite = at(recording.run, "update.nonfinite")
    assert nonfinite["0.weight"] == 1
    assert np.isnan(nonfinite["1.weight"])


def test_complex_parameters_are_compared_by_their_parts(watch, at, healthy):
    model = nn.Linear(2, 1, bias=False, dtype=torch.complex64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with watch(model, optimizer) as recording:
        model(torch.tensor([[1 + 1j, 2.0]])).abs().sum().backward()
        before = model.weight.detach().clone()
        optimizer.step()
    healthy(recording.run)
    change = torch.linalg.vector_norm(model.weight.detach() - before).item()
    assert at(recording.run, "update.norm")["weight"] == pytest.approx(change, rel=1e-5)


def test_in_bfloat16_the_share_that_rounding_swallows_is_told(watch, at, healthy):
    torch.manual_seed(0)
    model = nn.Linear(30, 20, dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0)
    with watch(model, optimizer) as recording:
        model(torch.randn(16, 30, dtype=torch.bfloat16)).square().mean().backward()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.step()
    healthy(recording.run)
    found = at(recording.run, "update.unchanged")
    for name, p in model.named_parameters():
        assert found[name] == pytest.approx((p == before[name]).double().mean().item(), rel=1e-5)
    assert 0.3 < found["weight"] < 1


def test_of_wide_weights_no_share_is_told(watch):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    assert "update.unchanged" not in recording.run


def test_of_a_large_complex_weight_the_parts_that_were_not_compared_are_made_up_for(watch, at, healthy):
    model = nn.Linear(300, 100, bias=False, dtype=torch.complex64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with watch(model, optimizer) as recording:
        model(torch.ones(1, 300, dtype=torch.complex64)).abs().sum().backward()
        before = model.weight.detach().clone()
        optimizer.step()
    healthy(recording.run)
    change = torch.linalg.vector_norm(model.weight.detach() - before).item()
    assert at(recording.run, "update.norm")["weight"] == pytest.approx(change, rel=0.1)
