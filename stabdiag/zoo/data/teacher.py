"""Points labelled by a random network, the teacher."""

from __future__ import annotations

import torch

from stabdiag.zoo.data.generator import generator
from stabdiag.zoo.training import Batch, Batches

HIDDEN = 32


def teacher(
    seed: int, batch: int, inputs: int, outputs: int, *, classes: bool, noise: float = 0.1
) -> Batches:
    """Points [batch, inputs] from N(0, 1); classes int64 [batch], or values [batch, outputs] of about N(0,
    1)."""
    world = generator(seed, 0)
    first = torch.randn(inputs, HIDDEN, generator=world) * (2 / inputs**0.5)
    second = torch.randn(HIDDEN, outputs, generator=world) / HIDDEN**0.5

    def take(index: int) -> Batch:
        source = generator(seed, index + 1)
        points = torch.randn(batch, inputs, generator=source)
        values = (points @ first).tanh() @ second * 1.2
        values += noise * torch.randn(values.shape, generator=source)
        return points, values.argmax(1) if classes else values

    return take
