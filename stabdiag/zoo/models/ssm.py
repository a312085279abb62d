"""A selective state space model (Mamba-2: Dao and Gu 2024, arXiv 2405.21060), on tokens of a hidden Markov
model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.hidden import hidden
from stabdiag.zoo.training import Batch, Objective, Parts

VOCABULARY, LENGTH = 48, 24
KERNEL = 4


class Mixer(nn.Module):
    """A recurrence whose decay, input and readout depend on the token, after a short convolution; gated."""

    def __init__(self, width: int, heads: int, state: int) -> None:
        super().__init__()
        inner = 2 * width
        self.heads, self.sizes = heads, (inner, inner, state, state, heads)
        self.in_proj = nn.Linear(width, sum(self.sizes), bias=False)
        self.conv1d = nn.Conv1d(inner, inner, KERNEL, groups=inner, padding=KERNEL - 1)
        steps = torch.exp(torch.rand(heads) * math.log(0.3 / 0.01) + math.log(0.01))
        self.dt_bias = nn.Parameter(steps.expm1().log())
        self.a_log = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.d = nn.Parameter(torch.ones(heads))
        self.norm = nn.RMSNorm(inner)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        gate, x, b, c, dt = self.in_proj(u).split(self.sizes, -1)
        x = F.silu(self.conv1d(x.transpose(1, 2))[..., : u.shape[1]]).transpose(1, 2)
        x, dt = x.view(*dt.shape, -1), F.softplus(dt + self.dt_bias)
        y = self.scan(x, dt, b, c) + self.d[:, None] * x
        out: Tensor = self.out_proj(self.norm(y.flatten(-2) * F.silu(gate)))
        return out

    def scan(self, x: Tensor, dt: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Readouts of the state [batch, heads, size, state] after each token."""
        decay = torch.exp(-dt * self.a_log.exp())[..., None, None]
        enters = (dt[..., None] * x)[..., None] * b[:, :, None, None, :]
        state, seen = torch.zeros_like(enters[:, 0]), []
        for t in range(x.shape[1]):
            state = decay[:, t] * state + enters[:, t]
            seen.append(state)
        return (torch.stack(seen, 1) @ c[:, :, None, :, None]).squeeze(-1)


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, state: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.mixer = nn.RMSNorm(width), Mixer(width, heads, state)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.dropout(self.mixer(self.norm(x)))
        return y


class StateSpaceLM(nn.Module):
    def __init__(self, layers: int, width: int, heads: int, state: int, dropout: float, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(Layer(width, heads, state, dropout) for _ in range(layers))
        self.norm_f = nn.RMSNorm(width)
        self.lm_head = nn.Linear(width, VOCABULARY, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.1)
        if tied:
            self.lm_head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.lm_head(self.norm_f(x))
        return logits


@architecture(
    "ssm", "tokens", "causal", "recurrent", "residual", "stream", "stack", "norm", "head",
    lr=4e-3, sgd_lr=0.15, batch=12, steps=300, clip=1.0,
)  # fmt: skip
def build(
    seed: int,
    batch: int,
    layers: int = 2,
    width: int = 32,
    heads: int = 4,
    state: int = 8,
    dropout: float = 0.0,
    tied: bool = False,
) -> Parts:
    """Gated linear recurrences that choose what they keep, trained to predict the next token of a
    process with hidden states."""
    model = StateSpaceLM(layers, width, heads, state, dropout, tied)
    batches = hidden(seed, batch, LENGTH, VOCABULARY)

    def loss(data: Batch) -> Tensor:
        inputs, targets = data
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    blocks = tuple(f"layers.{i}" for i in range(layers))
    return Parts(model, [Objective(model, loss)], batches, held_out(batches), blocks)
