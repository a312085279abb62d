from __future__ import annotations

from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    from stabdiag.intervene.step import Step


@intervention(
    "raise-epsilon",
    title="Raise the optimizer's epsilon",
    takes=Value("ε", above=0, most=1),
    advice=("eps",),
)
class RaiseEpsilon(Intervention):
    """Sets `eps` of every parameter group where it is below VALUE, for the step alone."""

    def before_step(self, step: Step) -> None:
        step.set_epsilon(lambda held: max(self.value, held))
