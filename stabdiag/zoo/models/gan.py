"""A generative adversarial network on points about a ring."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import generator, held_out
from stabdiag.zoo.training import Batch, Objective, Parts

NOISE, MODES = 8, 8


class GAN(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(NOISE, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )
        self.discriminator = nn.Sequential(
            nn.Linear(2, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )


@architecture("gan", "adversarial", lr=1e-3, sgd_lr=0.02, batch=64, warmup=0, optimizers=("adaptive",))
def build(seed: int, batch: int, width: int = 64) -> Parts:
    """A generator of points and a discriminator, trained in turn with the non-saturating loss."""
    model = GAN(width)

    def batches(index: int) -> Batch:
        source = generator(seed, index + 1)
        angle = torch.randint(MODES, (batch,), generator=source) * (2 * math.pi / MODES)
        real = torch.stack([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(batch, 2, generator=source)
        return real, torch.randn(batch, NOISE, generator=source)

    def judge(data: Batch) -> Tensor:
        real, noise = data
        fake = model.generator(noise).detach()
        return F.softplus(-model.discriminator(real)).mean() + F.softplus(model.discriminator(fake)).mean()

    def deceive(data: Batch) -> Tensor:
        return F.softplus(-model.discriminator(model.generator(data[1]))).mean()

    objectives = [Objective(model.discriminator, judge), Objective(model.generator, deceive)]
    return Parts(model, objectives, batches, held_out(batches), ("generator.2", "discriminator.2"))
