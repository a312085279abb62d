"""`--guard`."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from stabdiag.intervene.usual import LEAST, SHIFT, Usual


def train(steps=120, scales=(), bad=(), seed=0):
    """Steps with these factors on the loss, and with NaN in those of `bad`."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    factors = dict(scales)
    for step in range(steps):
        x = torch.randn(32, 4)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean() * factors.get(step, 1.0)
        loss = loss * float("nan") if step in bad else loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, optimizer


def test_a_healthy_run_is_left_alone(applying, told):
    expected, _ = train()
    with applying(guard=True):
        model, _ = train()
    assert told("skipped") == told("clipped") == []
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))


def test_steps_that_are_not_finite_poison_neither_weights_nor_moments(applying, told):
    with applying(guard=True):
        model, optimizer = train(bad=(50, 51, 80))
    assert [event.step for event in told("skipped")] == [50, 51, 80]
    held = [*model.parameters(), *(t for s in optimizer.state.values() for t in s.values())]
    assert all(torch.isfinite(t).all() for t in held)
    assert {float(s["step"]) for s in optimizer.state.values()} == {117.0}


def test_an_outlying_batch_is_skipped_and_said_by_how_much_it_was_outlying(applying, told):
    with applying(guard=True):
        train(scales=[(60, 1e4)])
    (event,) = told("skipped")
    assert event.step == 60
    assert event.data["because"] == "gradient and loss"
    assert event.data["norm"] > 100 * event.data["usual"]


def test_outliers_never_become_usual_by_being_frequent(applying, told):
    outlying = [step for step in range(60, 180) if step % 3]
    with applying(guard=True):
        train(steps=180, scales=[(step, 1e4) for step in outlying])
    assert [event.step for event in told("skipped")] == outlying


def test_an_outlying_gradient_of_a_usual_loss_is_clipped(applying, told):
    with applying(guard=True) as session:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for step in range(70):
            x = torch.randn(32, 4)
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            if step == 60:
                for p in model.parameters():
                    p.grad.mul_(1e4)
                before = [p.detach().clone() for p in model.parameters()]
            optimizer.step()
            if step == 60:
                moved = sum((p - b).square().sum() for p, b in zip(model.parameters(), before, strict=True))
    (event,) = told("clipped")
    assert event.step == 60
    assert math.sqrt(moved.item()) == pytest.approx(1e-3 * event.data["usual"], rel=1e-3)
    assert session.steps == 70


def test_a_run_without_a_finite_gradient_is_asked_to_stop_once(applying, recorded):
    with applying(guard=True):
        train(steps=60, bad=range(20, 60))
    (event,) = recorded().events_of("stop")
    assert event.step == 39
    assert "no gradient was finite in the last 20 steps" in event.data["because"]


def test_what_is_not_finite_never_enters_what_is_usual():
    usual = Usual(floor=0.05)
    for value in [1.0, math.nan, math.inf, 1.2, 0.8] * LEAST:
        usual.take(value, usual=True)
    assert usual.limit(6) == pytest.approx(1 + 6 * 1.4826 * 0.2, abs=0.1)


def test_a_lasting_change_of_level_is_no_outlier_for_ever():
    usual = Usual(floor=0.05)
    for _ in range(LEAST):
        usual.take(1.0, usual=True)
    assert usual.limit(6) < 2
    for _ in range(SHIFT):
        usual.take(9.0, usual=False)
    assert usual.limit(6) == math.inf
