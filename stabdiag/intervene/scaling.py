"""Gradients that are still multiplied by the scale of a gradient scaler when the optimizer steps: those of
optimizers that unscale in their own kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def withheld(optimizer: Any) -> bool:
    """Whether the optimizer will leave everything as it is, for the scaler found a non-finite gradient."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(float(found) > 0)


def unscale(optimizer: Any, parameters: Sequence[torch.Tensor]) -> None:
    """Does now what the kernel would have done, as `GradScaler.unscale_` does. The scaler takes away what it
    left at the optimizer when the step has ended."""
    scale = getattr(optimizer, "grad_scale", None)
    if scale is None:
        return
    inverse = scale.double().reciprocal().float()
    gradients = [p.grad for p in parameters if p.grad is not None]
    for gradient in gradients:
        gradient.mul_(inverse.to(gradient.device))
    optimizer.grad_scale = None
