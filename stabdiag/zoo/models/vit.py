"""A vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929), on pictures of textures."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.textures import CLASSES, textures
from stabdiag.zoo.training import Batch, Objective, Parts

SIZE, PATCH, CHANNELS = 16, 4, 3


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(y.transpose(1, 2).flatten(-2))
        return out


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attn(self.norm1(x)))
        y: Tensor = x + self.drop(self.mlp(self.norm2(x)))
        return y


class VisionTransformer(nn.Module):
    def __init__(self, layers: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(CHANNELS, width, PATCH, stride=PATCH)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + (SIZE // PATCH) ** 2, width))
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.patch_embed(pictures).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.head(self.norm(x)[:, 0])
        return scores


@architecture(
    "vit", "transformer", "attention", "classes", "pictures", "residual", "stream", "stack",
    "norm", "head", "positions",
    lr=2e-3, sgd_lr=0.05, batch=24, steps=350, clip=1.0,
)  # fmt: skip
def build(
    seed: int, batch: int, layers: int = 3, width: int = 48, heads: int = 4, dropout: float = 0.0
) -> Parts:
    """Patches, a class token and pre-norm blocks of attention, trained to tell textures apart."""
    model = VisionTransformer(layers, width, heads, dropout)
    batches = textures(seed, batch, SIZE, CHANNELS, noise=1.3)

    def loss(data: Batch) -> Tensor:
        pictures, classes = data
        return F.cross_entropy(model(pictures), classes)

    blocks = tuple(f"blocks.{i}" for i in range(layers))
    return Parts(model, [Objective(model, loss)], batches, held_out(batches), blocks)
