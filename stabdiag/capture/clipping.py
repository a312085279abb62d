"""The moment just before gradients are clipped by their global norm."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch.nn.utils import clip_grad

from stabdiag.capture.patch import Patch

Clip = Callable[[list[torch.Tensor], float, torch.Tensor], None]


class ClippingObserver:
    """Calls `clip(parameters, max_norm, total_norm)` before `clip_grad_norm_` scales the gradients.

    It takes the place of the inner function that scales, so that `error_if_nonfinite`, raised before,
    has no frame of ours. `total_norm` is a 0-d tensor, still on its device.
    """

    def __init__(self, clip: Clip) -> None:
        def observe(
            parameters: torch.Tensor | Iterable[torch.Tensor],
            max_norm: float,
            total_norm: torch.Tensor,
            foreach: bool | None = None,
        ) -> None:
            listed = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
            clip(listed, max_norm, total_norm)
            self._patch.original(listed, max_norm, total_norm, foreach)

        self._patch = Patch(clip_grad, "_clip_grads_with_norm_", observe)

    def remove(self) -> None:
        self._patch.remove()
