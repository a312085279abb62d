"""An encoder and a decoder with attention written out, which turn sequences round."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.reversal import reversal
from stabdiag.zoo.training import Batch, Objective, Parts

SYMBOLS, LENGTH = 24, 12


class Heads(nn.Module):
    """Attention from one sequence to another, or to itself."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.to_q, self.to_kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.merge = nn.Linear(width, width)
        self.scale = (width // heads) ** -0.5

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for t in (self.to_q(x), *self.to_kv(memory).chunk(2, -1))
        )
        scores = q @ k.transpose(-2, -1) * self.scale
        if self.causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        y = scores.softmax(-1) @ v
        out: Tensor = self.merge(y.transpose(1, 2).flatten(-2))
        return out


class Unit(nn.Module):
    """Self-attention, attention to a memory where there is one, and an MLP; norms after the sums."""

    def __init__(self, width: int, crosses: bool) -> None:
        super().__init__()
        self.own = Heads(width, 4, causal=crosses)
        self.cross = Heads(width, 4) if crosses else None
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 if crosses else 2))

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        x = self.norms[0](x + self.own(x, x))
        if self.cross is not None and memory is not None:
            x = self.norms[2](x + self.cross(x, memory))
        y: Tensor = self.norms[1](x + self.feed(x))
        return y


class Translator(nn.Module):
    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.symbols = nn.Embedding(SYMBOLS, width)
        self.places = nn.Embedding(LENGTH, width)
        self.encode = nn.ModuleList(Unit(width, crosses=False) for _ in range(layers))
        self.decode = nn.ModuleList(Unit(width, crosses=True) for _ in range(layers))
        self.say = nn.Linear(width, SYMBOLS)

    def forward(self, given: Tensor, seen: Tensor) -> Tensor:
        places = self.places.weight
        memory, x = self.symbols(given) + places, self.symbols(seen) + places
        for unit in self.encode:
            memory = unit(memory)
        for unit in self.decode:
            x = unit(x, memory)
        logits: Tensor = self.say(x)
        return logits


@architecture(
    "encoder-decoder", "transformer", "attention", "tokens", "residual", "norm", "relu", "head", "positions",
    "solvable",
    lr=2e-3, sgd_lr=0.1, batch=12, steps=400, warmup=40, clip=1.0,
)  # fmt: skip
def build(seed: int, batch: int, layers: int = 2, width: int = 48) -> Parts:
    """Post-norm encoder and decoder with ReLU, trained to say a sequence backwards."""
    model = Translator(layers, width)
    batches = reversal(seed, batch, LENGTH, SYMBOLS)

    def loss(data: Batch) -> Tensor:
        given, seen, answer = data
        return F.cross_entropy(model(given, seen).flatten(0, 1), answer.flatten())

    blocks = (*(f"encode.{i}" for i in range(layers)), *(f"decode.{i}" for i in range(layers)))
    return Parts(model, [Objective(model, loss)], batches, held_out(batches), blocks)
