from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from stabdiag.stats.tokens import token_statistics


class Collapsing(nn.Module):
    """Its second layer averages over the tokens."""

    def __init__(self, first: bool = False) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(32, 16), nn.Linear(16, 16), nn.Linear(16, 32)
        self.first = first

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(tokens)
        if self.first:
            hidden = hidden.transpose(0, 1)
        mixed = self.mix(hidden)
        dim = 0 if self.first else 1
        self.hidden = hidden.detach()
        return self.head(mixed.mean(dim, keepdim=True).expand(mixed.shape))


def train(model, watch, steps=11):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randint(32, (4, 12))).square().mean().backward()
            optimizer.step()
    return recording.run


@pytest.mark.parametrize("first", [False, True])
def test_likeness_is_told_at_first_and_in_slow_steps_in_either_layout(watch, at, healthy, first):
    model = Collapsing(first)
    run = train(model, watch)
    healthy(run)
    assert run.table("tokens.cosine").steps.tolist() == [0, 1, 10]
    cosine, spread = at(run, "tokens.cosine", -1), at(run, "tokens.spread", -1)
    assert cosine["head"] == pytest.approx(1.0, abs=1e-4)
    assert spread["head"] == pytest.approx(0.0, abs=1e-4)
    sequences = model.hidden.transpose(0, 1) if first else model.hidden
    expected = token_statistics(sequences).tolist()
    assert [at(run, f"tokens.{name}", -1)["embed"] for name in ("cosine", "spread", "rank")] == pytest.approx(
        expected, rel=1e-3
    )


def test_what_is_no_sequence_is_left_out(watch):
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for _ in range(12):
            model(torch.randn(64, 4)).square().mean().backward()
            optimizer.step()
    assert "tokens.cosine" not in recording.run


def test_tokens_that_are_not_finite_do_not_switch_it_off(watch, healthy):
    model = Collapsing()
    nn.init.constant_(model.mix.bias, math.inf)
    run = train(model, watch)
    healthy(run)
    assert run.table("tokens.nonfinite").column("mix").tolist() == [1.0] * 3


def test_under_autocast_tokens_are_compared_in_the_precision_that_they_have(watch, at):
    model = Collapsing()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording, torch.autocast("cpu", torch.bfloat16):
        model(torch.randint(32, (4, 12))).float().square().mean().backward()
        optimizer.step()
    expected = token_statistics(model.hidden.float())[0].item()
    assert at(recording.run, "tokens.cosine", 0)["embed"] == pytest.approx(expected, abs=1e-5)
