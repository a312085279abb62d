from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import Case, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "gradients-not-zeroed", title="Gradients of earlier steps are never cleared", fixes=("zero-gradients",)
)
def gradients_not_zeroed(run: Run, finding: Finding) -> Weight | None:
    """Each backward pass adds to the gradients of all earlier steps, since nothing sets them to zero.

    The gradients that the first backward after a step finds have the norm that they had at that step
    (a carry-over of 1, where 0 is right), and the gradient norm grows with the number of steps.
    Gradient accumulation is not this: there the gradients are cleared once an optimizer step.

    Reference: https://pytorch.org/docs/stable/optim.html#optimization-loop
    """
    carried = history(run, "run.grad_carryover").within(1, finding.last_step).finite().values
    if not len(carried):
        return None
    share = float(np.mean(carried > 0.5))
    case = Case()
    case.speaks_for(
        0.95 * ramp(share, 0.2, 0.9),
        f"the gradients of the step before were still there at {100 * share:.0f} % of {len(carried)} steps",
    )
    return case.weight()
