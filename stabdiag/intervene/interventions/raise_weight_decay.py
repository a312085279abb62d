from __future__ import annotations

from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    from stabdiag.intervene.step import Group, Step


@intervention(
    "raise-weight-decay",
    title="Raise the weight decay",
    takes=Value("weight decay", above=0),
    advice=("weight_decay",),
)
class RaiseWeightDecay(Intervention):
    """Sets `weight_decay` of every parameter group where it is below VALUE, for the step alone. Groups that
    do not decay, as biases and gains should not, are left out where another one does."""

    def before_step(self, step: Step) -> None:
        decays = any(group.get("weight_decay", 0) > 0 for group in step.groups)

        def chosen(group: Group) -> bool:
            return group["weight_decay"] > 0 or not decays

        step.set("weight_decay", lambda group: max(self.value, group["weight_decay"]), where=chosen)
