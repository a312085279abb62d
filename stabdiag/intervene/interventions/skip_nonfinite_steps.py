from __future__ import annotations

import math
from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, intervention

if TYPE_CHECKING:
    from stabdiag.intervene.step import Step


@intervention("skip-nonfinite-steps", title="Leave out updates with non-finite gradients")
class SkipNonfiniteSteps(Intervention):
    """Makes no step where the norm of the gradients is not a finite number: the optimizer finds no gradient
    at all, so that neither weights nor state nor its count of steps move."""

    decides = True

    def on_gradients(self, step: Step) -> None:
        if not math.isfinite(step.norm()):
            step.tell("skipped")
            step.skip()
