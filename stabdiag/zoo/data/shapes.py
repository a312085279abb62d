"""Pictures of simple shapes: disks, squares, crosses, rings, bars and triangles, somewhere, of some size,
in noise."""

from __future__ import annotations

import torch

from stabdiag.zoo.data.generator import generator
from stabdiag.zoo.training import Batch, Batches

CLASSES = 6


def shapes(seed: int, batch: int, size: int = 16, noise: float = 0.3) -> Batches:
    """Pictures [batch, 1, size, size] with values about 0 and 1, and classes int64 [batch]."""
    line = torch.linspace(-1, 1, size)

    def take(index: int) -> Batch:
        source = generator(seed, index + 1)
        center = torch.rand(2, batch, 1, 1, generator=source) * 0.8 - 0.4
        radius = torch.rand(batch, 1, 1, generator=source) * 0.25 + 0.35
        x, y = line.view(1, 1, -1) - center[0], line.view(1, -1, 1) - center[1]
        wide, high, far = x.abs(), y.abs(), (x * x + y * y).sqrt()
        near = torch.maximum(wide, high) < radius
        all_shapes = torch.stack(
            [
                far < radius,
                near,
                near & (torch.minimum(wide, high) < radius / 3),
                (far < radius) & (far > radius * 0.6),
                near & (high < radius / 3),
                near & (y > 2 * wide - radius),
            ]
        )
        classes = torch.randint(CLASSES, (batch,), generator=source)
        pictures = all_shapes[classes, torch.arange(batch)].float().unsqueeze(1)
        return pictures + noise * torch.randn(pictures.shape, generator=source), classes

    return take
