"""Pictures of a colored shape on a colored ground, and what is said of them, in varying words and order."""

from __future__ import annotations

import torch
from torch import Tensor

from stabdiag.zoo.data.generator import generator
from stabdiag.zoo.training import Batch, Batches

PALETTE = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]])
COLORS, SHAPES, PLACES = len(PALETTE), 4, 4
SYNONYMS = 2
A, ON = 0, 1
FIRST_COLOR = 2
FIRST_SHAPE = FIRST_COLOR + SYNONYMS * COLORS
FIRST_PLACE = FIRST_SHAPE + SYNONYMS * SHAPES
WORDS = FIRST_PLACE + SYNONYMS * PLACES
LENGTH = 6
ORDERS = torch.tensor([[0, 1, 2, 3, 4, 5], [3, 0, 1, 2, 4, 5], [4, 5, 0, 1, 2, 3]])
"""Places of: a, color, shape, place, on, ground."""


def scenes(seed: int, batch: int, size: int = 16, noise: float = 0.1) -> Batches:
    """Pictures [batch, 3, size, size] with values between -1 and 1, in noise, and captions int64 [batch,
    LENGTH]."""

    def take(index: int) -> Batch:
        source = generator(seed, index + 1)

        def draw(count: int) -> Tensor:
            return torch.randint(count, (batch,), generator=source)

        color, shape, place = draw(COLORS), draw(SHAPES), draw(PLACES)
        ground = (color + 1 + draw(COLORS - 1)) % COLORS
        jitter = 0.2 * torch.rand(2, batch, generator=source) - 0.1
        inside = _shape(shape, place, jitter, size).unsqueeze(1)
        pictures = torch.where(inside, PALETTE[color][..., None, None], PALETTE[ground][..., None, None])
        pictures = pictures + noise * torch.randn(pictures.shape, generator=source)
        words = [
            torch.full((batch,), A),
            FIRST_COLOR + SYNONYMS * color + draw(SYNONYMS),
            FIRST_SHAPE + SYNONYMS * shape + draw(SYNONYMS),
            FIRST_PLACE + SYNONYMS * place + draw(SYNONYMS),
            torch.full((batch,), ON),
            FIRST_COLOR + SYNONYMS * ground + draw(SYNONYMS),
        ]
        return pictures, torch.stack(words, 1).gather(1, ORDERS[draw(len(ORDERS))])

    return take


def _shape(shape: Tensor, place: Tensor, jitter: Tensor, size: int) -> Tensor:
    """Where it is, bool [batch, size, size]: a disk, a square, a cross or a bar in one of the quarters."""
    line = torch.linspace(-1, 1, size)
    right, low = place % 2 - 0.5, place // 2 - 0.5
    wide = (line[None, None, :] - (right + jitter[0])[:, None, None]).abs()
    high = (line[None, :, None] - (low + jitter[1])[:, None, None]).abs()
    near = torch.maximum(wide, high) < 0.45
    kinds = torch.stack(
        [wide**2 + high**2 < 0.2, near, near & (torch.minimum(wide, high) < 0.15), near & (high < 0.15)]
    )
    return kinds[shape, torch.arange(len(shape))]
