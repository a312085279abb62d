"""A denoising diffusion model (Ho et al. 2020, arXiv 2006.11239), on pictures of textures."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.diffused import diffused
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.textures import textures
from stabdiag.zoo.training import Batch, Objective, Parts

GROUPS = 4


def sinusoids(times: Tensor, size: int) -> Tensor:
    """Sines and cosines of the times at `size` / 2 frequencies, [batch, size]."""
    speeds = 10_000.0 ** (-torch.arange(0, size, 2) / size)
    angles = times[:, None] * speeds
    return torch.cat([angles.sin(), angles.cos()], 1)


class ResBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, time: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, outputs)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[..., None, None]
        z: Tensor = self.skip(x) + self.conv2(self.dropout(F.silu(self.norm2(y))))
        return z


class UNet(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        time = 2 * width
        self.width = width
        self.embed_time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.conv_in = nn.Conv2d(1, width, 3, padding=1)
        self.down1 = ResBlock(width, width, time, dropout)
        self.shrink = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.down2 = ResBlock(width, 2 * width, time, dropout)
        self.middle = ResBlock(2 * width, 2 * width, time, dropout)
        self.up2 = ResBlock(4 * width, 2 * width, time, dropout)
        self.grow = nn.Conv2d(2 * width, width, 3, padding=1)
        self.up1 = ResBlock(2 * width, width, time, dropout)
        self.norm_out, self.conv_out = nn.GroupNorm(GROUPS, width), nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, pictures: Tensor, times: Tensor) -> Tensor:
        time = self.embed_time(sinusoids(times, self.width).to(pictures.dtype))
        fine = self.down1(self.conv_in(pictures), time)
        coarse = self.down2(self.shrink(fine), time)
        x = self.middle(coarse, time)
        x = self.up2(torch.cat([x, coarse], 1), time)
        x = self.grow(F.interpolate(x, scale_factor=2.0))
        x = self.up1(torch.cat([x, fine], 1), time)
        noise: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return noise


@architecture(
    "denoiser", "pictures", "values", "residual", "norm", lr=4e-3, sgd_lr=0.15, batch=16, steps=300, clip=1.0
)
def build(seed: int, batch: int, width: int = 8, dropout: float = 0.0) -> Parts:
    """A U-Net with group normalization, SiLU and an embedding of the time, trained to predict the noise in a
    picture."""
    model = UNet(width, dropout)
    batches = diffused(textures(seed, batch, channels=1, noise=0.0), seed)

    def loss(data: Batch) -> Tensor:
        noised, times, noise = data
        return F.mse_loss(model(noised, times), noise)

    blocks = ("down1", "down2", "middle", "up2", "up1")
    return Parts(model, [Objective(model, loss)], batches, held_out(batches), blocks)
