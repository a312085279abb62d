"""What the state of Adam says of a step."""

from __future__ import annotations

import torch

STATISTICS = ("rms", "eps_share", "step", "cosine", "momentum")


def adam_statistics(
    gradient: torch.Tensor, first: torch.Tensor, second: torch.Tensor, settings: torch.Tensor
) -> torch.Tensor:
    """Of parameters after a step, a row each: float32 [parameters, 5] on the device of `gradient`.

    rms        sqrt(mean(g² / max(v̂, eps²))), RMS_t of Wortsman et al. (arXiv 2304.13013); 1 where the second
               moment describes the gradient, above where it lags behind; v̂ is bias-corrected
    eps_share  share of coordinates where sqrt(v̂) < eps: their step is no longer normalised
    step       root mean square of m̂ / (sqrt(v̂) + eps), the update in units of the learning rate, without
               weight decay
    cosine     of the gradient with the first moment
    momentum   norm of the first moment

    `first` and `second` are the moments as the step left them, like `gradient` float32
    [parameters, coordinates]; rows that have fewer coordinates end in zeros, those of `second` in
    infinities. `settings`, float32 [parameters, 5]: how many coordinates there are, steps so far, both betas,
    epsilon.
    """
    size, count, beta1, beta2, eps = settings.T[:, :, None].to(torch.float32)
    floor = torch.finfo(torch.float32).tiny
    corrected = second / (1 - beta2**count)
    root = corrected.sqrt()
    update = first / (1 - beta1**count) / (root + eps)
    length = first.norm(dim=1)
    inner = (gradient * first).sum(1)
    return torch.stack(
        [
            mean((gradient.square() / corrected.clamp(min=(eps * eps).clamp(min=floor))), size).sqrt(),
            mean((root < eps).to(torch.float32), size),
            mean(update.square(), size).sqrt(),
            inner / (gradient.norm(dim=1) * length).clamp(min=floor),
            length,
        ],
        dim=1,
    )


def mean(values: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """Over the first `size` [rows, 1] of each row; beyond these the values are zeros."""
    return values.sum(1) / size[:, 0]
