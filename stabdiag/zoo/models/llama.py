"""A decoder as Llama's (Touvron et al. 2023, arXiv 2307.09288), on sentences of a random grammar."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.grammar import grammar
from stabdiag.zoo.training import Batch, Objective, Parts

VOCABULARY, LENGTH = 40, 32
HEAD = 8
"""Size of a head."""


def rotated(x: Tensor, turns: Tensor) -> Tensor:
    """Queries or keys [batch, heads, time, size], each pair of neighbors turned as a complex number; in full
    precision, which complex numbers of fewer bits do not have."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns[: x.shape[-2]]).flatten(-2).type_as(x)


class GroupedAttention(nn.Module):
    """Several heads of queries share one of keys and values (Ainslie et al. 2023)."""

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.size = width // heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, groups * self.size, bias=False)
        self.to_v = nn.Linear(width, groups * self.size, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        speeds = 10_000.0 ** (-torch.arange(0, self.size, 2) / self.size)
        angles = torch.outer(torch.arange(LENGTH), speeds)
        self.turns = torch.polar(torch.ones_like(angles), angles)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (-1, self.size)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        q, k = rotated(q, self.turns), rotated(k, self.turns)
        k, v = (shared.repeat_interleave(q.shape[1] // shared.shape[1], 1) for shared in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.to_out(y.transpose(1, 2).flatten(-2))
        return out


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 8 * width // 3
        self.w1, self.w3 = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return out


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.RMSNorm(width), GroupedAttention(width, heads, groups)
        self.ffn_norm, self.feed_forward = nn.RMSNorm(width), FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        y: Tensor = x + self.dropout(self.feed_forward(self.ffn_norm(x)))
        return y


class Llama(nn.Module):
    def __init__(self, layers: int, width: int, groups: int, dropout: float, tied: bool) -> None:
        super().__init__()
        heads = width // HEAD
        self.tok_embeddings = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(TransformerBlock(width, heads, groups, dropout) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.output = nn.Linear(width, VOCABULARY, bias=False)
        if tied:
            self.output.weight = self.tok_embeddings.weight
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.4 / width**0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tok_embeddings(tokens)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.output(self.norm(x))
        return logits


@architecture(
    "llama", "transformer", "attention", "tokens", "causal", "residual", "stream", "stack",
    "norm", "head",
    lr=3e-3, sgd_lr=0.2, batch=12, steps=300, clip=1.0,
)  # fmt: skip
def build(
    seed: int,
    batch: int,
    layers: int = 3,
    width: int = 48,
    groups: int = 2,
    dropout: float = 0.0,
    tied: bool = False,
) -> Parts:
    """Blocks of grouped-query attention with rotary positions and SwiGLU, with RMS norms before them, trained
    to predict the next token of sentences."""
    model = Llama(layers, width, groups, dropout, tied)
    batches = grammar(seed, batch, LENGTH, VOCABULARY)

    def loss(data: Batch) -> Tensor:
        inputs, targets = data
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    blocks = tuple(f"layers.{i}" for i in range(layers))
    return Parts(model, [Objective(model, loss)], batches, held_out(batches), blocks)
