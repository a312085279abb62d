"""What the state of Adam says of a step."""

from __future__ import annotations

import torch

STATISTICS = ("rms", "eps_share", "step", "cosine", "momentum")


def adam_statistics(
    gradient: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    count: torch.Tensor | float,
    betas: tuple[float, float],
    eps: float,
) -> torch.Tensor:
    """Of one parameter after a step: float32 [5] on the device of `gradient`.

    rms        sqrt(mean(g² / max(v̂, eps²))), RMS_t of Wortsman et al. (arXiv 2304.13013); 1 where the second
               moment describes the gradient, above where it lags behind; v̂ is bias-corrected
    eps_share  share of coordinates where sqrt(v̂) < eps: their step is no longer normalised
    step       root mean square of m̂ / (sqrt(v̂) + eps), the update in units of the learning rate, without
               weight decay
    cosine     of the gradient with the first moment
    momentum   norm of the first moment

    `first` and `second` are the moments as the step left them, `count` the number of steps so far.
    """
    gradient, first, second = (t.to(torch.float32).flatten() for t in (gradient, first, second))
    beta1, beta2 = betas
    corrected = second / (1 - beta2**count)
    root = corrected.sqrt()
    update = first / (1 - beta1**count) / (root + eps)
    floor = torch.finfo(torch.float32).tiny
    return torch.stack(
        [
            (gradient.square() / corrected.clamp(min=max(eps * eps, floor))).mean().sqrt(),
            (root < eps).to(torch.float32).mean(),
            update.square().mean().sqrt(),
            torch.dot(gradient, first) / (gradient.norm() * first.norm()).clamp(min=floor),
            first.norm(),
        ]
    )
