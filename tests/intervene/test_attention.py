"""qk-clip: of each head its own rows, whatever lies between a projection and the logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

TAU = 3.0


class Attention(nn.Module):
    """Four heads of width 4. `largest` are the largest logits of its heads in the last call."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.groups = 2 if kind == "grouped" else 4
        self.packed = kind in ("packed", "written out")
        if self.packed:
            self.qkv = nn.Linear(16, 48)
        else:
            self.q, self.k, self.v = nn.Linear(16, 16), *(nn.Linear(16, 4 * self.groups) for _ in "kv")
        self.out = nn.Linear(16, 16, bias=False)
        self.norm = nn.LayerNorm(4) if kind == "normalized" else nn.Identity()

    def forward(self, x):
        items, length, _ = x.shape
        parts = self.qkv(x).chunk(3, -1) if self.packed else (self.q(x), self.k(x), self.v(x))
        q, k, v = (part.view(items, length, -1, 4).transpose(1, 2) for part in parts)
        q = self.norm(q)
        if self.kind == "of unit size":
            q = q * q.square().mean(-1, keepdim=True).rsqrt()
        if self.kind == "rotary":
            q, k = rotated(q), rotated(k)
        visible = torch.tril(torch.ones(length, length)).bool()
        scores = (q @ k.repeat_interleave(4 // self.groups, 1).mT * 0.5).masked_fill(~visible, -torch.inf)
        self.largest = scores.detach().amax((0, 2, 3)).tolist()
        if self.kind == "written out":
            mixed = scores.softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.groups < 4)
        return self.out(mixed.transpose(1, 2).reshape(items, length, 16))


def rotated(x):
    angle = torch.arange(x.shape[2])[:, None] * torch.tensor([1.0, 0.1])
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


@torch.no_grad()
def by_hand(layer):
    for head, logit in enumerate(layer.largest):
        if logit <= TAU:
            continue
        rows = slice(4 * head, 4 * head + 4)
        if layer.kind == "grouped":
            held = [(layer.q.weight, rows, TAU / logit), (layer.q.bias, rows, TAU / logit)]
        elif layer.packed:
            keys = slice(16 + 4 * head, 20 + 4 * head)
            both = [(t, r) for r in (rows, keys) for t in (layer.qkv.weight, layer.qkv.bias)]
            held = [(t, r, (TAU / logit) ** 0.5) for t, r in both]
        else:
            both = (layer.q.weight, layer.q.bias, layer.k.weight, layer.k.bias)
            held = [(t, rows, (TAU / logit) ** 0.5) for t in both]
        for tensor, where, factor in held:
            tensor[where] *= factor


def train(kind, after=lambda layer: None):
    torch.manual_seed(0)
    model = nn.Sequential(Attention(kind), Attention(kind))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for _ in range(5):
        loss = model(torch.randn(3, 7, 16)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for layer in model:
            after(layer)
    return [p.detach().clone() for p in model.parameters()], model[0].largest


@pytest.mark.parametrize("kind", ["apart", "packed", "written out", "grouped", "rotary"])
def test_the_rows_of_a_head_are_rescaled_as_by_hand(applying, told, kind):
    plain, before = train(kind)
    expected, _ = train(kind, by_hand)
    random = torch.get_rng_state()
    with applying(f"qk-clip={TAU}"):
        weights, largest = train(kind)
    assert told("clipped")
    assert torch.equal(torch.get_rng_state(), random)
    assert max(largest) < 2 * TAU < max(before)
    assert not torch.equal(plain[0], expected[0])
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))


@pytest.mark.parametrize("kind", ["normalized", "of unit size"])
def test_queries_that_do_not_grow_with_their_weights_are_left_alone(applying, recorded, kind):
    expected, _ = train(kind)
    with applying(f"qk-clip={TAU}"):
        weights, _ = train(kind)
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
    because = [e.data for e in recorded().events_of("coverage") if e.data["what"] == "intervention qk-clip"]
    assert "could be told" in because[0]["because"]
