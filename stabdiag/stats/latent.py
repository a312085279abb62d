"""How much a Gaussian posterior says."""

from __future__ import annotations

import torch

STATISTICS = ("kl", "kl_dim", "active", "max_log_variance")
ACTIVE = 0.05
"""Nats above which a dimension counts as used: by its divergence, as the variance of means calls dimensions
used that say nothing."""


def latent_statistics(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Of diagonal Gaussians against the standard normal, both [items, …]: float32 [4] on their device.

    kl                nats an item, the mean over items of the sum over dimensions
    kl_dim            the same a dimension
    active            share of dimensions with more than 0.05 nats, in the mean over items
    max_log_variance  largest log variance
    """
    mean, variance = (t.detach().to(torch.float32).flatten(1) for t in (mean, variance))
    log = variance.log()
    kl = 0.5 * (mean.square() + variance - 1.0 - log).mean(0)
    return torch.stack([kl.sum(), kl.mean(), (kl > ACTIVE).to(torch.float32).mean(), log.max()])
