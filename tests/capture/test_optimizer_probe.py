from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn


def fit(make, watch, steps=6, sizes=(6, 9)):
    """Trains and returns the recording, and by hand what the optimizer's state says at the last step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.Tanh(), nn.Linear(sizes[1], 2))
    optimizer = make(model.parameters())
    with watch(model, optimizer) as recording:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(8, sizes[0])).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            optimizer.step()
    gradients = {name: p.grad.double().flatten() for name, p in model.named_parameters()}
    states = {name: optimizer.state[p] for name, p in model.named_parameters()}
    return recording, gradients, states, optimizer.param_groups[0]


def column(recording, statistic):
    table = recording.run.table(f"optimizer.{statistic}")
    return dict(zip(table.names, table.values[-1].tolist(), strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, lr=1e-2),
        lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.8, 0.95), eps=1e-4, foreach=True),
        lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
        lambda p: torch.optim.Adam(p, lr=torch.tensor(1e-2), capturable=False, foreach=False),
    ],
)
def test_adam_is_measured_as_by_hand(watch, healthy, make):
    recording, gradients, states, group = fit(make, watch)
    healthy(recording.run)
    beta1, beta2 = group["betas"]
    for name, gradient in gradients.items():
        count = float(states[name]["step"])
        first = states[name]["exp_avg"].double().flatten()
        second = states[name]["exp_avg_sq"].double().flatten() / (1 - beta2**count)
        floor = torch.full_like(second, group["eps"] ** 2)
        expected = {
            "rms": (gradient.square() / torch.maximum(second, floor)).mean().sqrt(),
            "eps_share": (second.sqrt() < group["eps"]).double().mean(),
            "step": (first / (1 - beta1**count) / (second.sqrt() + group["eps"])).square().mean().sqrt(),
            "cosine": nn.functional.cosine_similarity(gradient, first, dim=0),
            "momentum": first.norm(),
        }
        for statistic, value in expected.items():
            assert column(recording, statistic)[name] == pytest.approx(value.item(), rel=1e-3, abs=1e-6)
        assert column(recording, "nonfinite")[name] == 0


def test_at_its_first_step_adam_is_as_large_as_its_rate(watch):
    recording, *_ = fit(lambda p: torch.optim.Adam(p), watch, steps=1)
    assert column(recording, "step")["0.weight"] == pytest.approx(1, rel=1e-3)
    assert column(recording, "rms")["0.weight"] == pytest.approx(1, rel=1e-3)


def test_of_sgd_the_momentum_is_known_and_nothing_else(watch, healthy):
    recording, _, states, _ = fit(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), watch)
    healthy(recording.run)
    expected = states["0.weight"]["momentum_buffer"].norm().item()
    assert column(recording, "momentum")["0.weight"] == pytest.approx(expected, rel=1e-4)
    assert np.isnan(column(recording, "rms")["0.weight"])
    assert not list(recording.run.events_of("coverage"))


def test_sgd_without_momentum_has_no_state_to_tell_of(watch, healthy):
    recording, *_ = fit(lambda p: torch.optim.SGD(p, lr=0.1), watch)
    healthy(recording.run)
    assert "optimizer.momentum" not in recording.run


@pytest.mark.parametrize("make", [torch.optim.Rprop, torch.optim.ASGD])
def test_of_an_optimizer_that_is_not_known_nothing_is_guessed(watch, healthy, make):
    recording, *_ = fit(lambda p: make(p, lr=1e-3), watch)
    healthy(recording.run)
    assert "optimizer.rms" not in recording.run
    told = [event.data["what"] for event in recording.run.events_of("coverage")]
    assert told == [f"the optimizer {make.__name__}"]


class Renamed(torch.optim.RMSprop):
    """Takes torch's own step."""


def test_a_subclass_with_the_step_of_its_parent_is_known_as_that(watch):
    recording, _, states, _ = fit(lambda p: Renamed(p, lr=1e-3, momentum=0.9), watch)
    expected = states["0.weight"]["momentum_buffer"].norm().item()
    assert column(recording, "momentum")["0.weight"] == pytest.approx(expected, rel=1e-4)
    (told,) = recording.run.events_of("optimizer")
    assert (told.data["name"], told.data["family"]) == ("Renamed", "RMSprop")


def test_large_tensors_are_estimated_from_a_sample(watch):
    recording, _, states, _ = fit(lambda p: torch.optim.Adam(p, lr=1e-3), watch, sizes=(128, 256))
    expected = states["0.weight"]["exp_avg"].norm().item()
    assert column(recording, "momentum")["0.weight"] == pytest.approx(expected, rel=0.1)


class Signed(torch.optim.AdamW):
    """Keeps what AdamW keeps under the same names, and does something else with it."""

    def step(self, closure=None):
        super().step(closure)
        for state in self.state.values():
            state["exp_avg"].sign_()


def test_a_subclass_with_a_step_of_its_own_is_not_taken_for_its_parent(watch, healthy):
    recording, *_ = fit(Signed, watch)
    healthy(recording.run)
    assert "optimizer.rms" not in recording.run
    told = [event.data["what"] for event in recording.run.events_of("coverage")]
    assert "the optimizer Signed" in told
