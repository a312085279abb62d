"""A small decoder of other make: rotary positions, RMS norms, gated MLPs, on Zipf-Markov text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.markov import markov
from stabdiag.zoo.training import Batch, Objective, Parts

VOCABULARY, LENGTH = 128, 32


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def rotate(x: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021) of queries or keys [batch, heads, time, size]."""
    time, half = x.shape[-2], x.shape[-1] // 2
    turn = torch.arange(time)[:, None] * 1000.0 ** (-torch.arange(half) / half)
    first, second = x.chunk(2, dim=-1)
    cos, sin = turn.cos(), turn.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).type_as(x)


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True, scale=self.scale)
        out: Tensor = self.out(y.transpose(1, 2).flatten(-2))
        return out


class Gated(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, 2 * width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = RMSNorm(width), SelfAttention(width, heads)
        self.norm2, self.mlp = RMSNorm(width), Gated(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Decoder(nn.Module):
    def __init__(self, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.final_norm = RMSNorm(width)
        self.unembed = nn.Linear(width, VOCABULARY, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.5 / width**0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.unembed(self.final_norm(x))
        return logits


@architecture(
    "markov-gpt", "transformer", "attention", "tokens", "causal", "residual", "stream", "stack",
    "norm", "head",
    lr=3e-3, sgd_lr=0.3, batch=8, steps=300, clip=1.0,
)  # fmt: skip
def build(
    seed: int, batch: int, layers: int = 3, width: int = 48, heads: int = 4, repeats: bool = True
) -> Parts:
    """A decoder with rotary positions, RMS norms and gated MLPs, trained to predict the next token of a
    chain."""
    model = Decoder(layers, width, heads)
    batches = markov(seed, batch, LENGTH, VOCABULARY, repeats)

    def loss(data: Batch) -> Tensor:
        inputs, targets = data
        return F.cross_entropy(model(inputs).transpose(1, 2), targets)

    blocks = tuple(f"layers.{i}" for i in range(layers))
    return Parts(model, [Objective(model, loss)], batches, held_out(batches), blocks)
