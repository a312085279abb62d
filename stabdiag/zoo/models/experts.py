"""A mixture of experts: attention and routed MLPs, on Zipf-Markov text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.markov import markov
from stabdiag.zoo.training import Batch, Objective, Parts

VOCABULARY, LENGTH = 96, 24


class Experts(nn.Module):
    """Each token goes to the best expert by the router's probabilities (Fedus et al. 2021)."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(experts)
        )
        self.imbalance = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, -2)
        probabilities = self.router(tokens).softmax(-1)
        weight, chosen = probabilities.max(-1)
        out = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero().squeeze(-1)
            if len(rows):
                out = out.index_add(0, rows, (weight[rows, None] * expert(tokens[rows])).type_as(out))
        load = F.one_hot(chosen, len(self.experts)).float().mean(0)
        self.imbalance = len(self.experts) * (load * probabilities.mean(0)).sum()
        return out.view_as(x)


class RoutedBlock(nn.Module):
    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.moe = Experts(width, experts)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attend(y, y, y, attn_mask=mask, is_causal=True, need_weights=False)[0]
        z: Tensor = x + self.moe(self.norm2(x))
        return z


class MixtureLM(nn.Module):
    def __init__(self, layers: int, width: int, experts: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(RoutedBlock(width, experts) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, mask)
        logits: Tensor = self.out(self.norm(x))
        return logits


@architecture(
    "experts", "transformer", "attention", "tokens", "causal", "residual", "stream", "stack",
    "norm", "router", "head",
    lr=3e-3, sgd_lr=0.3, batch=8, steps=300, clip=1.0,
)  # fmt: skip
def build(
    seed: int, batch: int, layers: int = 2, width: int = 48, experts: int = 4, balance: float = 0.02
) -> Parts:
    """Blocks of attention and four experts with a balance loss, trained to predict the next token of a
    chain."""
    model = MixtureLM(layers, width, experts)
    batches = markov(seed, batch, LENGTH, VOCABULARY, repeats=False)

    def loss(data: Batch) -> Tensor:
        inputs, targets = data
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        imbalance = torch.stack([m.imbalance for m in model.modules() if isinstance(m, Experts)]).mean()
        return loss + balance * imbalance

    blocks = tuple(f"blocks.{i}" for i in range(layers))
    return Parts(model, [Objective(model, loss)], batches, held_out(batches), blocks)
