from __future__ import annotations

from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, intervention

if TYPE_CHECKING:
    from stabdiag.intervene.step import Step


@intervention("zero-gradients", title="Clear the gradients once a step", advice=("zero_grad",))
class ZeroGradients(Intervention):
    """Sets the gradients of an optimizer to None after each of its steps, as
    `zero_grad(set_to_none=True)` does."""

    def after_step(self, step: Step) -> None:
        step.forget_gradients()
