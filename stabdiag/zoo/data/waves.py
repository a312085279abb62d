"""Waves of some frequency and phase in noise: to continue, or to tell apart by their form."""

from __future__ import annotations

import math

import torch

from stabdiag.zoo.data.generator import generator
from stabdiag.zoo.training import Batch, Batches

FORMS = 4


def waves(seed: int, batch: int, length: int, *, forms: bool, noise: float = 0.1) -> Batches:
    """Waves [batch, length, 1]; with `forms` and their classes int64 [batch] (sine, square, saw, triangle),
    else the same one step later."""

    def take(index: int) -> Batch:
        source = generator(seed, index + 1)
        frequency = torch.rand(batch, 1, generator=source) * 0.15 + 0.05
        phase = torch.rand(batch, 1, generator=source)
        form = torch.randint(FORMS if forms else 1, (batch,), generator=source)
        turns = frequency * torch.arange(length + 1) + phase
        saw = 2 * (turns % 1) - 1
        sine = (2 * math.pi * turns).sin()
        signal = torch.stack([sine, sine.sign(), saw, 2 * saw.abs() - 1])[form, torch.arange(batch)]
        signal = (signal + noise * torch.randn(signal.shape, generator=source)).unsqueeze(-1)
        return signal[:, :-1], form if forms else signal[:, 1:]

    return take
