"""Two encoders that are trained to agree (CLIP: Radford et al. 2021, arXiv 2103.00020), on pictures and
captions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.scenes import LENGTH, WORDS, scenes
from stabdiag.zoo.training import Batch, Objective, Parts

SHARPEST = math.log(100)


class Stage(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, momentum: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs, momentum=momentum)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.bn(self.conv(x)))
        return y


class TextBlock(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.dropout(self.attn(y, y, y, need_weights=False)[0])
        z: Tensor = x + self.dropout(self.mlp(self.ln_2(x)))
        return z


class TextTower(nn.Module):
    def __init__(self, layers: int, width: int, dropout: float) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(WORDS, width)
        self.positional_embedding = nn.Parameter(0.1 * torch.randn(LENGTH, width))
        self.blocks = nn.ModuleList(TextBlock(width, 4, dropout) for _ in range(layers))
        self.ln_final = nn.LayerNorm(width)

    def forward(self, words: Tensor) -> Tensor:
        x = self.token_embedding(words) + self.positional_embedding
        for block in self.blocks:
            x = block(x)
        pooled: Tensor = self.ln_final(x).mean(1)
        return pooled


class TwoTowers(nn.Module):
    def __init__(self, layers: int, width: int, momentum: float, dropout: float) -> None:
        super().__init__()
        self.visual = nn.Sequential(
            Stage(3, width // 2, 1, momentum), Stage(width // 2, width, 2, momentum),
            Stage(width, width, 2, momentum), nn.Flatten(), nn.Linear(16 * width, width, bias=False),
        )  # fmt: skip
        self.text = TextTower(layers, width, dropout)
        self.text_projection = nn.Linear(width, width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, pictures: Tensor, words: Tensor) -> Tensor:
        """Similarity of each picture with each caption, over the temperature. Lengths are taken in full
        precision: the square of a small half is zero."""
        seen = F.normalize(self.visual(pictures).float(), dim=-1)
        said = F.normalize(self.text_projection(self.text(words)).float(), dim=-1)
        scale = self.logit_scale.clamp(max=SHARPEST).exp()
        return scale * seen @ said.T


@architecture(
    "two-tower", "attention", "pictures", "values", "contrastive", "batchnorm", "residual", "norm", "relu",
    "positions",
    lr=2e-3, sgd_lr=0.05, batch=24, steps=350, clip=1.0,
)  # fmt: skip
def build(
    seed: int, batch: int, layers: int = 2, width: int = 32, momentum: float = 0.1, dropout: float = 0.0
) -> Parts:
    """A convolutional encoder of pictures and a transformer of captions, trained to find which belong
    together, with a temperature that is learned."""
    model = TwoTowers(layers, width, momentum, dropout)
    batches = scenes(seed, batch)

    def loss(data: Batch) -> Tensor:
        similarity = model(*data)
        own = torch.arange(len(similarity))
        return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2

    blocks = (*(f"visual.{i}" for i in range(3)), *(f"text.blocks.{i}" for i in range(layers)))
    return Parts(model, [Objective(model, loss)], batches, held_out(batches), blocks)
