from __future__ import annotations

from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    from stabdiag.intervene.step import Step


@intervention(
    "lower-weight-decay",
    title="Lower the weight decay",
    takes=Value("weight decay, 0 or more", above=-1e-300, default=0),
    advice=("weight_decay",),
)
class LowerWeightDecay(Intervention):
    """Sets `weight_decay` of every parameter group where it is above VALUE, for the step alone."""

    def before_step(self, step: Step) -> None:
        step.set("weight_decay", lambda group: min(self.value, group["weight_decay"]))
