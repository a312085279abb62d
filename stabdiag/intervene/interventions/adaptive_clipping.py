from __future__ import annotations

import math
import statistics
import weakref
from collections import deque
from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    import torch

    from stabdiag.intervene.step import Step

WINDOW = 128
LEAST = 8


@intervention(
    "adaptive-clipping",
    title="Clip the gradient norm relative to what is usual",
    takes=Value("multiple of the median norm of the last 128 steps", above=0, default=1.5),
    advice=("clip_multiple",),
)
class AdaptiveClipping(Intervention):
    """Scales the gradients of an optimizer down to VALUE times the median norm of the last 128 steps, of
    eight at least. A norm enters the history as it was clipped, so that the limit follows a lasting change,
    but no single step moves it far; one that is not finite never enters."""

    decides = True

    def __init__(self, value: float) -> None:
        super().__init__(value)
        self._norms: weakref.WeakKeyDictionary[torch.optim.Optimizer, deque[float]] = (
            weakref.WeakKeyDictionary()
        )

    def on_gradients(self, step: Step) -> None:
        from torch.nn.utils import clip_grad_norm_

        norms = self._norms.setdefault(step.optimizer, deque(maxlen=WINDOW))
        limit = self.value * statistics.median(norms) if len(norms) >= LEAST else math.inf
        norm = float(clip_grad_norm_(step.parameters, limit))
        if norm > limit:
            step.count("clipped")
        if math.isfinite(norm):
            norms.append(min(norm, limit))
