from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("zero-gradients", title="Clear the gradients once a step")
def zero_gradients(run: Run, finding: Finding) -> Change:
    """Sets the gradients to None after each optimizer step.

    It costs nothing. It worked when `run.grad_carryover` is 0 and the gradient norm no longer grows
    with the steps. With accumulation, clear once an optimizer step, not once a micro-batch.
    """
    return Change(
        f"clear the gradients after each optimizer step: they have been adding up since step "
        f"{finding.onset_step}",
        "optimizer.step()\noptimizer.zero_grad(set_to_none=True)",
        {"zero_grad": 1.0},
    )
