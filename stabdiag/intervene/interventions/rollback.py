from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    import torch

    from stabdiag.intervene.step import Step


MARGIN = 10
"""Steps before the onset that are not trusted."""


@intervention(
    "rollback",
    title="Go back to the weights of a step, and on past some batches",
    takes=Value("steps whose updates are left out, from the one after @ on", above=0, whole=True),
)
class Rollback(Intervention):
    """Makes no update in VALUE steps, and puts the weights back after them, whatever else has written there.
    In a run from the start that is what going back to the step after @ and on past those batches comes to:
    weights and optimizer state are those of that step, the data are later. Holds one more copy of the weights
    for as long."""

    def __init__(self, value: float) -> None:
        super().__init__(value)
        self._first: int | None = None
        self._kept: dict[torch.Tensor, torch.Tensor] = {}

    @classmethod
    def advised(cls, runtime: Mapping[str, float], onset: int) -> tuple[str, ...]:
        back = int(runtime.get("rollback_to", onset))
        if "lr_scale" in runtime:
            return (f"lower-learning-rate={runtime['lr_scale']:.6g}@{back}",)
        # Something of it may have shown before what the advice was made from.
        first, last = min(back, max(onset - MARGIN, 0)), max(back, onset)
        return (f"{cls.id}={last - first + 1}@{first}",)

    def on_gradients(self, step: Step) -> None:
        if self._first is None:
            self._first = step.number
        if step.number >= self._first + self.value:
            return
        for group in step.groups:
            for parameter in group["params"]:
                self._kept.setdefault(parameter, parameter.detach().clone())
        if step.number == self._first + self.value - 1:
            self._put_back(step)
        step.tell("skipped")
        step.skip()

    def _put_back(self, step: Step) -> None:
        for group in step.groups:
            for parameter in group["params"]:
                if parameter in self._kept:
                    parameter.data.copy_(self._kept.pop(parameter))

    def end(self) -> None:
        self._kept.clear()
