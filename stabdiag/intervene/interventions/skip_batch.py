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
LEAST = 32


@intervention(
    "skip-batch",
    title="Leave the update of a suspicious batch out",
    takes=Value("standard deviations of the loss above its recent mean", above=0, default=6),
    advice=("skip_above_z",),
)
class SkipBatch(Intervention):
    """Makes no step where the loss is more than VALUE standard deviations above the mean of the last 128
    steps that were made, 32 at least. Where several processes train together each has a loss of its own, and
    the norm of the gradients, which is the same in all of them, takes its place."""

    decides = True

    def __init__(self, value: float) -> None:
        super().__init__(value)
        self._recent: weakref.WeakKeyDictionary[torch.optim.Optimizer, deque[float]] = (
            weakref.WeakKeyDictionary()
        )

    def on_gradients(self, step: Step) -> None:
        recent = self._recent.setdefault(step.optimizer, deque(maxlen=WINDOW))
        loss = step.loss
        value = step.norm() if loss is None else loss
        known = len(recent) >= LEAST
        limit = statistics.mean(recent) + self.value * statistics.stdev(recent) if known else math.inf
        if value <= limit and math.isfinite(value):
            recent.append(value)
        else:
            step.tell("skipped", **{"norm" if loss is None else "loss": value}, limit=limit)
            step.skip()
