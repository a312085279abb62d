from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    from stabdiag.intervene.step import Step


@intervention(
    "rollback",
    title="Leave out the updates of some steps",
    takes=Value("steps whose updates are left out, from the one after @ on", above=0, whole=True),
)
class Rollback(Intervention):
    """Makes no update in VALUE steps. In a run from the start that is what going back to the step after @ and
    on past those batches comes to: weights and optimizer state are those of that step, the data are later."""

    def __init__(self, value: float) -> None:
        super().__init__(value)
        self._first: int | None = None

    @classmethod
    def advised(cls, runtime: Mapping[str, float], onset: int) -> tuple[str, ...]:
        back = int(runtime.get("rollback_to", onset))
        if "lr_scale" in runtime:
            return (f"lower-learning-rate={runtime['lr_scale']:.6g}@{back}",)
        return (f"{cls.id}={onset - back + 1}@{back}",)

    def on_gradients(self, step: Step) -> None:
        if self._first is None:
            self._first = step.number
        if step.number < self._first + self.value:
            step.tell("skipped")
            step.skip()
