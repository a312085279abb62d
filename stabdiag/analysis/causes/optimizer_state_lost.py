from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import Case, figure
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "optimizer-state-lost",
    title="The optimizer's state was lost",
    fixes=("rollback", "add-warmup", "lower-learning-rate"),
)
def optimizer_state_lost(run: Run, finding: Finding) -> Weight | None:
    """The moments of the optimizer were empty again: a checkpoint without them, or an optimizer built anew.

    The count of steps that the state carries tells it exactly. `torch.save` has to hold
    `optimizer.state_dict()`, and the optimizer has to be built before the loop, once.

    Reference: https://pytorch.org/tutorials/beginner/saving_loading_models.html
    """
    ages = history(run, "run.optimizer_age").finite()
    again = np.flatnonzero((np.diff(ages.values) <= 0) & (ages.values[1:] <= np.diff(ages.steps))) + 1
    near = [at for at in again if finding.onset_step - 20 <= ages.steps[at] <= finding.onset_step + 2]
    if not near:
        return None
    case = Case()
    at = near[-1]
    case.speaks_for(
        0.9,
        f"its state was empty again at step {ages.steps[at]}, after {figure(float(ages.values[at - 1]))} "
        "steps",
    )
    return case.weight()
