"""`stabdiag run --guard`: protection of a run by its own history."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, ClassVar

from stabdiag.intervene.intervention import Intervention
from stabdiag.intervene.usual import Usual

if TYPE_CHECKING:
    import torch

    from stabdiag.intervene.step import Step

Z = 6.0
"""Deviations above the median, of the loss and of the logarithm of the gradient norm. Of healthy steps the
norm alone passes it in 6.6 of 1,000 (LSTMs above all), both together in none of 7,650."""

PERMANENT = 20
"""Steps in a row without a finite gradient after which skipping more would only hide the failure."""


class _History:
    def __init__(self) -> None:
        self.norm = Usual(floor=0.05)
        self.loss = Usual(floor=0.01, relative=True)
        self.lost = 0


class Protection(Intervention):
    """Skips steps whose gradient is not finite, before they reach weights or the optimizer's state; clips an
    outlying gradient to the edge of what is usual; skips the step where the loss is outlying as well; asks
    for the end of the run when no gradient is finite any more.

    Where several processes train together, only the gradient decides, which is the same in all of them.
    """

    id: ClassVar[str] = "guard"
    title: ClassVar[str] = "Protect the run by its own history"
    decides = True

    def __init__(self) -> None:
        super().__init__(0.0)
        self._of: weakref.WeakKeyDictionary[torch.optim.Optimizer, _History] = weakref.WeakKeyDictionary()

    def on_gradients(self, step: Step) -> None:
        history = self._of.setdefault(step.optimizer, _History())
        norm, loss = step.norm(), step.loss
        if not math.isfinite(norm):
            self._nonfinite(step, history)
            return
        history.lost = 0
        log = math.log(norm) if norm > 0 else -math.inf
        limit = history.norm.limit(Z)
        outlying = log > limit
        bad = loss is not None and not loss <= history.loss.limit(Z)
        history.norm.take(log, not outlying)
        if loss is not None:
            history.loss.take(loss, not bad)
        if outlying and bad:
            step.tell("skipped", because="gradient and loss", norm=norm, usual=math.exp(limit), loss=loss)
            step.skip()
        elif outlying:
            self._clip(step, norm, math.exp(limit))

    def _nonfinite(self, step: Step, history: _History) -> None:
        history.lost += 1
        step.tell("skipped", because="gradient not finite")
        step.skip()
        if history.lost == PERMANENT:
            step.stop(f"--guard: no gradient was finite in the last {PERMANENT} steps")

    def _clip(self, step: Step, norm: float, limit: float) -> None:
        from torch.nn.utils import clip_grad_norm_

        step.tell("clipped", norm=norm, usual=limit)
        clip_grad_norm_(step.parameters, limit)
