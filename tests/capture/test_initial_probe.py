"""What the parameters were before training, and the model that was never initialized."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stabdiag.analysis.diagnose import diagnose


def test_parameters_are_measured_before_the_first_step(watch, at, healthy):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
    with watch(model, optimizer, every=10) as recording:
        for _ in range(12):
            optimizer.zero_grad()
            model(torch.randn(5, 3)).square().mean().backward()
            optimizer.step()
    run = recording.run
    healthy(run)
    assert list(run.table("initial.absmax").steps) == [0]
    for name, value in before.items():
        assert at(run, "initial.absmax")[name] == pytest.approx(value.abs().max().item())
        assert at(run, "initial.rms")[name] == pytest.approx(value.square().mean().sqrt().item())
        assert at(run, "initial.zeros")[name] == 0
        assert at(run, "initial.nonfinite")[name] == 0


class Attention(nn.Module):
    """`reset_parameters` reaches none of its layers, as in PyTorch's FSDP2 example."""

    def __init__(self, width):
        super().__init__()
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(width, width) for _ in range(4))

    def reset_parameters(self):
        pass

    def forward(self, x):
        return self.wo(F.scaled_dot_product_attention(self.wq(x), self.wk(x), self.wv(x), is_causal=True))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width)
        self.ffn_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Linear(width, width)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))


class Transformer(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.layers = nn.Sequential(Block(width), Block(width))
        self.output = nn.Linear(width, 11, bias=False)

    def forward(self, tokens):
        return self.output(self.layers(self.embedding(tokens)))


def memory(shape, kind):
    """What memory may hold that was used before."""
    used = torch.rand(shape) < 0.02
    if kind == "huge":
        return torch.where(used, 1e33 * torch.randn(shape), 0.0)
    if kind == "not a number":
        return torch.where(used, torch.nan, 0.0)
    if kind == "denormal":
        return 1e-41 * torch.ones(shape)
    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("huge", "failed"), ("not a number", "failed"), ("denormal", "at-risk"), ("zeros", "unstable")],
)
@pytest.mark.parametrize("cadence", [{"every": 1}, {"every": 10}, {"every": None}])
def test_layers_that_to_empty_left_unwritten_are_named_with_their_cause(watch, kind, verdict, cadence):
    with torch.device("meta"):
        model = Transformer()
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(memory(parameter.shape, kind))
    for module in model.modules():
        if not isinstance(module, nn.Linear) and hasattr(module, "reset_parameters"):
            module.reset_parameters()
    model.output.reset_parameters()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with watch(model, optimizer, **cadence) as recording:
        for _ in range(8):
            tokens = torch.randint(11, (4, 6))
            loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    diagnosis = diagnose(recording.run)
    incident = diagnosis.incidents[0]
    root = diagnosis.findings[incident.root]
    assert diagnosis.verdict == verdict
    assert root.signature == "bad-initialization"
    assert root.sites[0] == "layers.0.attention.wq.weight"
    assert incident.cause.id == "bad-init-scale"
    assert incident.fixes[0].id == "rescale-init"
    assert "module.reset_parameters()" in incident.fixes[0].code


def test_pretrained_and_low_rank_models_are_initialized(watch):
    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(8, 8)
            self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
            nn.init.zeros_(self.up.weight)
            with torch.no_grad():
                self.base.weight *= 10

        def forward(self, x):
            return self.base(x) + self.up(self.down(x))

    model = Adapted()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with watch(model, optimizer) as recording:
        for _ in range(3):
            model(torch.randn(4, 8)).square().mean().backward()
            optimizer.step()
    assert [f for f in diagnose(recording.run).findings if f.signature == "bad-initialization"] == []
