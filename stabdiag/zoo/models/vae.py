"""A variational autoencoder of pictures of shapes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.shapes import shapes
from stabdiag.zoo.training import Batch, Objective, Parts

SIZE = 16


class VAE(nn.Module):
    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(SIZE * SIZE, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.mean = nn.Linear(width, latent)
        self.log_variance = nn.Linear(width, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, SIZE * SIZE))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.encoder(pictures)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        sample = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(sample), mean, log_variance


@architecture("vae", "pictures", "latent", "relu", lr=1e-3, sgd_lr=3e-4, batch=64)
def build(seed: int, batch: int, width: int = 128, latent: int = 8, beta: float = 1.0) -> Parts:
    """An encoder to a Gaussian in eight dimensions and a decoder, trained on the evidence lower bound."""
    model = VAE(width, latent)
    batches = shapes(seed, batch, SIZE, noise=0.0)

    def loss(data: Batch) -> Tensor:
        pictures, _ = data
        decoded, mean, log_variance = model(pictures)
        error = F.binary_cross_entropy_with_logits(decoded, pictures.flatten(1), reduction="sum")
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
        bound: Tensor = (error + beta * divergence) / len(pictures)
        return bound

    return Parts(model, [Objective(model, loss)], batches, held_out(batches), ("encoder", "mean", "decoder"))
