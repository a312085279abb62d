"""A GPT decoder: token and position embedding, pre-norm blocks, and a head over the vocabulary."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Config:
    """The shape of a model: `context` is its longest sequence, `width` is divided among the heads."""

    vocabulary: int = 256
    context: int = 128
    layers: int = 4
    heads: int = 4
    width: int = 128
    dropout: float = 0.0
    tied: bool = False


class Attention(nn.Module):
    """Causal self-attention: [batch, time, width] to the same."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.width % config.heads:
            raise ValueError(f"width {config.width} cannot be divided among {config.heads} heads")
        self.heads = config.heads
        self.dropout = config.dropout
        # One matrix for query, key and value: one large product is faster than three small ones.
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.project = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = (
            part.view(batch, time, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        y = self.project(y.transpose(1, 2).reshape(batch, time, width))
        return F.dropout(y, self.dropout, self.training)


class MLP(nn.Module):
    """Two layers around a GELU, four times as wide inside."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.expand = nn.Linear(config.width, 4 * config.width)
        self.activation: nn.Module = nn.GELU()
        self.project = nn.Linear(4 * config.width, config.width)
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.activation(self.expand(x)))
        return F.dropout(y, self.dropout, self.training)


class Block(nn.Module):
    """Pre-norm: the residual stream passes untouched, so that gradients reach the first block undimmed."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        y: Tensor = self.mlp(self.mlp_norm(x))
        return x + y


class GPT(nn.Module):
    """Integer tokens [batch, time] to logits [batch, time, vocabulary]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.apply(initialize)
        # Each block adds twice to the residual stream: 2L independent terms, each made smaller by
        # 1/sqrt(2L), keep the variance at the end that of one (GPT-2, section 2.3).
        for name, weight in self.named_parameters():
            if name.endswith("project.weight"):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * config.layers))
        if config.tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        time = tokens.shape[1]
        if time > self.config.context:
            raise ValueError(f"{time} tokens do not fit into a context of {self.config.context}")
        x = self.tokens(tokens) + self.positions(torch.arange(time, device=tokens.device))
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def initialize(module: nn.Module) -> None:
    """GPT-2's: N(0, 0.02) for matrices, zero for biases, so that the first prediction is near uniform."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
