from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from stabdiag.reference.ranges import Ranges


def ranges_of(model, *inputs, loss=lambda output: output.sum()):
    with Ranges(model) as ranges:
        for x in inputs:
            loss(model(x)).backward()
    return {(row.direction, row.module): row for row in ranges.rows}, ranges.rows


def test_ranges_are_those_of_the_outputs_and_of_the_gradients_with_respect_to_them():
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    x = torch.randn(4, 3)
    hidden = model[0](x)
    rows, _ = ranges_of(model, x)
    forward, backward = rows["forward", "0"], rows["backward", "0"]
    assert (forward.low, forward.high) == (hidden.min().item(), hidden.max().item())
    assert forward.rms == pytest.approx(hidden.square().mean().sqrt().item())
    gradient = 1 - hidden.tanh().square()
    assert backward.rms == pytest.approx(gradient.square().mean().sqrt().item())
    assert (backward.low, backward.nonfinite) == (pytest.approx(gradient.min().item()), 0)


def test_modules_come_in_the_order_in_which_they_ran_forward_then_backward():
    _, rows = ranges_of(nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.Tanh())), torch.randn(4, 3))
    assert [(row.direction, row.module) for row in rows] == [
        ("forward", "0"),
        ("forward", "1.0"),
        ("forward", "1"),
        ("forward", "Sequential"),
        ("backward", "1.0"),
        ("backward", "1"),
        ("backward", "Sequential"),
        ("backward", "0"),
    ]


def test_micro_batches_count_together():
    model = nn.Linear(2, 1, bias=False)
    nn.init.ones_(model.weight)
    rows, _ = ranges_of(model, torch.tensor([[1.0, 2.0]]), torch.tensor([[-4.0, 3.0]]))
    row = rows["forward", "Linear"]
    assert (row.low, row.high, row.rms) == (-1.0, 3.0, pytest.approx(math.sqrt(5)))


def test_values_that_are_not_finite_are_counted_and_left_out_of_the_range():
    rows, _ = ranges_of(nn.Identity(), torch.tensor([1.0, math.nan, -2.0, math.inf], requires_grad=True))
    row = rows["forward", "Identity"]
    assert (row.low, row.high, row.nonfinite, row.finite) == (-2.0, 1.0, 2, 2)


class Several(nn.Module):
    def forward(self, x):
        return {"a": x * 2, "rest": (x * 3, [x.long()])}


def test_outputs_in_containers_count_and_integers_do_not():
    rows, _ = ranges_of(
        Several(), torch.ones(2, requires_grad=True), loss=lambda o: o["a"].sum() + o["rest"][0].sum()
    )
    assert (rows["forward", "Several"].finite, rows["forward", "Several"].high) == (4, 3.0)


def test_gradients_are_the_same_with_it_and_no_hook_stays():
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 1))
    x = torch.randn(4, 3)
    model(x).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    rows, _ = ranges_of(model, x, loss=lambda y: y.square().sum())
    assert all(torch.equal(p.grad, e) for p, e in zip(model.parameters(), expected, strict=True))
    assert rows["forward", "0"].low < 0
    assert not any(module._forward_hooks for module in model.modules())
