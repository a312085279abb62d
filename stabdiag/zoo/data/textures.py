"""Pictures of textures in two colors: stripes of four directions, a chessboard, dots, rings and rays."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stabdiag.zoo.data.generator import generator
from stabdiag.zoo.training import Batch, Batches

CLASSES = 8


def textures(seed: int, batch: int, size: int = 16, channels: int = 3, noise: float = 0.3) -> Batches:
    """Pictures [batch, channels, size, size] of mean 0 and about unit variance, and classes int64 [batch]."""
    line = torch.linspace(-1, 1, size)

    def take(index: int) -> Batch:
        source = generator(seed, index + 1)
        frequency, shift, across = torch.rand(3, batch, 1, 1, generator=source)
        x, y = (
            (2 * shift - 1 + line).expand(-1, size, -1),
            (2 * across - 1 + line[:, None]).expand(-1, -1, size),
        )
        all_textures = _waves(x, y, math.pi * (2.0 + 1.5 * frequency))
        classes = torch.randint(CLASSES, (batch,), generator=source)
        texture = all_textures[classes, torch.arange(batch)].unsqueeze(1)
        contrast = 1.2 + 0.4 * torch.rand(batch, channels, 1, 1, generator=source)
        signs = torch.randint(2, (batch, channels, 1, 1), generator=source) * 2 - 1
        pictures = contrast * signs * texture
        return pictures + noise * torch.randn(pictures.shape, generator=source), classes

    return take


def _waves(x: Tensor, y: Tensor, turns: Tensor) -> Tensor:
    """Each texture at the points [batch, size, size], with `turns` radians a unit, between -1 and 1."""
    along, up = (turns * x).sin(), (turns * y).sin()
    rising, falling = (turns * (x + y) * 0.7).sin(), (turns * (x - y) * 0.7).sin()
    radius, angle = (x * x + y * y).sqrt(), torch.atan2(y, x)
    dots = torch.maximum(along, up)
    return torch.stack(
        [along, up, rising, falling, along * up, dots, (turns * radius).sin(), (4 * angle).sin()]
    )
