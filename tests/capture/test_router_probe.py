"""Mixtures of experts: which experts the tokens go to, however the router is written."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

EXPERTS, TOKENS = 6, 40


class Mixture(nn.Module):
    """A router over scalar experts; `way` is how it is written."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.gate = nn.Linear(8, EXPERTS, bias=way == "sigmoid")
        self.experts = nn.Parameter(torch.randn(EXPERTS))
        self.way = way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.gate(x)
        if self.way == "softmax, then topk":
            weights, chosen = logits.softmax(-1).topk(2, -1)
        elif self.way == "topk, then softmax":
            top, chosen = logits.topk(2, -1)
            weights = top.softmax(-1)
        elif self.way == "the largest":
            weights, chosen = logits.softmax(-1).max(-1, keepdim=True)
        else:
            scores = logits.sigmoid()
            with torch.no_grad():
                chosen = scores.topk(3, -1)[1]
            weights = scores.gather(-1, chosen)
        self.chosen, self.logits = chosen, logits.detach()
        return (weights * self.experts[chosen]).sum(-1)


class Net(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.mixture = Mixture(way)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mixture(self.first(x))


def step(model, optimizer, batches):
    for batch in batches:
        model(batch).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def entropy(logits: torch.Tensor, way: str) -> float:
    scores = logits.double().sigmoid() if way == "sigmoid" else logits.double().softmax(-1)
    shares = scores / scores.sum(-1, keepdim=True)
    return -(shares * shares.log()).sum(-1).mean().item()


@pytest.mark.parametrize("way", ["softmax, then topk", "topk, then softmax", "the largest", "sigmoid"])
def test_load_and_entropy_are_those_of_the_choices(watch, at, healthy, way):
    model = Net(way)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        step(model, optimizer, [torch.randn(2, TOKENS // 2, 8)])
    healthy(recording.run)
    counts = torch.bincount(model.mixture.chosen.flatten(), minlength=EXPERTS)
    expected = (counts / counts.sum()).tolist()
    load = at(recording.run, "router.load")
    assert [load[f"mixture[e{i}]"] for i in range(EXPERTS)] == pytest.approx(expected)
    assert at(recording.run, "router.max_load")["mixture"] == pytest.approx(max(expected))
    assert at(recording.run, "router.min_load")["mixture"] == pytest.approx(min(expected))
    found = at(recording.run, "router.entropy")["mixture"]
    if way == "topk, then softmax":
        assert math.isnan(found)  # only the chosen logits are kept
    else:
        assert found == pytest.approx(entropy(model.mixture.logits, way), rel=1e-4)
    assert at(recording.run, "router.nonfinite")["mixture"] == 0


def test_micro_batches_add_up(watch, at):
    model = Net("softmax, then topk")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    counts = torch.zeros(EXPERTS)

    def count(module, *_):
        counts.add_(torch.bincount(module.chosen.flatten(), minlength=EXPERTS))

    model.mixture.register_forward_hook(count)
    with watch(model, optimizer) as recording:
        step(model, optimizer, [torch.randn(10, 8), torch.randn(30, 8)])
    load = at(recording.run, "router.load")
    found = np.array([load[f"mixture[e{i}]"] for i in range(EXPERTS)])
    np.testing.assert_allclose(found, counts / counts.sum(), rtol=1e-6)


def test_scores_that_are_not_finite_show(watch, at):
    model = Net("softmax, then topk")
    nn.init.constant_(model.first.bias, float("nan"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        step(model, optimizer, [torch.randn(10, 8)])
    assert at(recording.run, "router.nonfinite")["mixture"] == 1


def test_attention_and_losses_are_no_routers(watch):
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            out = self.head(self.attention(x, x, x)[0])
            return -out.softmax(-1).gather(-1, labels[..., None]).log().mean()

    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        model(torch.randn(2, 6, 8), torch.randint(5, (2, 6))).backward()
        optimizer.step()
    assert "router.load" not in recording.run


@pytest.mark.slow
def test_mixtral_is_seen(watch, at, healthy):
    transformers = pytest.importorskip("transformers")
    config = transformers.MixtralConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=32,
    )  # fmt: skip
    model = transformers.MixtralForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters())
    with watch(model, optimizer) as recording:
        tokens = torch.randint(32, (2, 8))
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    healthy(recording.run)
    entropies = {n: v for n, v in at(recording.run, "router.entropy").items() if not math.isnan(v)}
    assert len(entropies) == 2
    assert all(0 < value <= math.log(4) + 1e-5 for value in entropies.values())
    assert sum(v for n, v in at(recording.run, "router.load").items() if "layers.0" in n and "[e" in n) == (
        pytest.approx(1)
    )
