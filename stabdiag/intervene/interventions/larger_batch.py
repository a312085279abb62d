from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    import torch

    from stabdiag.intervene.step import Step


@intervention(
    "larger-batch",
    title="Make the batch larger",
    takes=Value("batches that make up one update", above=1, whole=True),
    advice=("accumulate",),
)
class LargerBatch(Intervention):
    """Steps once in VALUE steps, by the mean of their gradients; the others leave weights and state alone.
    Clipping by the script acts on each of them before. The schedule still counts all steps."""

    def __init__(self, value: float) -> None:
        super().__init__(value)
        self._sums: dict[torch.Tensor, torch.Tensor] = {}
        self._taken: weakref.WeakKeyDictionary[torch.optim.Optimizer, int] = weakref.WeakKeyDictionary()

    def on_gradients(self, step: Step) -> None:
        for parameter in step.parameters:
            assert parameter.grad is not None
            before = self._sums.get(parameter)
            self._sums[parameter] = parameter.grad.clone() if before is None else before + parameter.grad
        taken = self._taken.get(step.optimizer, 0) + 1
        self._taken[step.optimizer] = taken % int(self.value)
        if taken < self.value:
            step.count("gathered")
            step.skip()
            return
        for group in step.groups:
            for parameter in group["params"]:
                if parameter in self._sums:
                    parameter.grad = self._sums.pop(parameter) / self.value

    def end(self) -> None:
        self._sums.clear()
