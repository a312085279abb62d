from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    import torch

    from stabdiag.intervene.step import Step


@intervention(
    "reset-optimizer-state",
    title="Start the optimizer's state anew",
    takes=Value("the step before which it is forgotten", above=0, whole=True),
    advice=("reset_at",),
)
class ResetOptimizerState(Intervention):
    """Clears the state of every optimizer once, just before the step of that number: moments, buffers and
    counts of steps begin anew, as in a fresh optimizer of the same settings."""

    def __init__(self, value: float) -> None:
        super().__init__(value)
        self._done: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()

    def before_step(self, step: Step) -> None:
        if step.number >= self.value and step.optimizer not in self._done:
            self._done.add(step.optimizer)
            step.optimizer.state.clear()
            step.tell("reset")
