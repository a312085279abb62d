from __future__ import annotations

from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    from stabdiag.intervene.step import Step


@intervention(
    "add-warmup",
    title="Warm the learning rate up, longer",
    takes=Value("steps in which it rises", above=0, whole=True),
    advice=("warmup_steps",),
)
class AddWarmup(Intervention):
    """Multiplies the learning rate by (n + 1) / VALUE in the n-th step from the start on, until that is 1. It
    composes with the script's own schedule, and so with a warm-up that is there."""

    def __init__(self, value: float) -> None:
        super().__init__(value)
        self._first: int | None = None

    def before_step(self, step: Step) -> None:
        if self._first is None:
            self._first = step.number
        share = (step.number - self._first + 1) / self.value
        if share < 1:
            step.set("lr", lambda group: group["lr"] * share)
