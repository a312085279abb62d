from __future__ import annotations

import torch

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "wide-posterior",
    signatures=("vae-kl-explosion", "bad-initialization", "nonfinite-origin"),
    causes=("bad-init-scale", "kl-weight-too-high", "unsafe-operation"),
    fixes=("rescale-init", "anneal-kl", "clip-gradients", "lower-learning-rate", "guard-operation"),
    follows=("exploding-gradient", "loss-spike", "loss-divergence", "exploding-activation"),
    doses=(5.0, 20.0, 60.0),
    found_from=60.0,
    needs=("latent",),
)
def plant(training: Training, dose: float) -> Planted:
    """The layer that gives the logarithm of the variance starts too wide: its exponential explodes."""
    with torch.no_grad():
        training.model.get_parameter("log_variance.weight").mul_(dose)
    return Planted(0, ("log_variance*", "VAE"), shows=20)
