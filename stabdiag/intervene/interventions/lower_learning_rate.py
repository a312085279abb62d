from __future__ import annotations

from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    from stabdiag.intervene.step import Step


@intervention(
    "lower-learning-rate",
    title="Lower the learning rate",
    takes=Value("factor of the learning rate of every parameter group", above=0, most=1),
    advice=("lr_scale",),
)
class LowerLearningRate(Intervention):
    """Multiplies the learning rate of every parameter group, for the step alone: a scheduler goes on from
    its own numbers, and the two compose."""

    def before_step(self, step: Step) -> None:
        step.set("lr", lambda group: group["lr"] * self.value)
