from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("fix-schedule", title="Correct the learning-rate schedule")
def fix_schedule(run: Run, finding: Finding) -> Change | None:
    """Steps the scheduler once an optimizer step, over a horizon of all the steps that there are.

    It costs nothing. It worked when the curve of `run.lr` is continuous, above zero, and reaches its
    end with the last step. After a resume, load the scheduler's state as well as the optimizer's.
    """
    plan = schedule(run)
    if not len(plan.rate):
        return None
    if not plan.rate.values.any():
        return _rises(run)
    if plan.peak <= 0:
        return None
    abrupt = plan.jump(finding.onset_step - 10, finding.onset_step)
    low = np.flatnonzero((plan.rate.values < 0.01 * plan.peak) & (plan.rate.steps > plan.warmup))
    if abrupt is not None:
        what = f"it went from {figure(abrupt[1])} to {figure(abrupt[2])} in step {abrupt[0]}"
    elif len(low):
        what = f"it was below 1 % of its peak from step {plan.rate.steps[low[0]]} of {run.steps}"
    else:
        return None
    return Change(
        f"one scheduler step an optimizer step, over all {run.steps} steps: {what}",
        f"total_steps = {run.steps}  # optimizer steps, not micro-batches\n"
        "scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(\n"
        f"    optimizer, T_max=total_steps, eta_min={0.1 * plan.peak:g}\n"
        ")\n"
        "# once a step, after optimizer.step():\n"
        "scheduler.step()",
    )


def _rises(run: Run) -> Change:
    return Change(
        f"let the schedule rise: the learning rate was zero at each of {run.steps} steps (in whole numbers, "
        "`step // warmup` is zero until the warm-up is over)",
        "scheduler = torch.optim.lr_scheduler.LambdaLR(\n"
        "    optimizer, lambda step: min(1.0, (step + 1) / warmup)  # of the learning rate of the optimizer\n"
        ")\n"
        "# once a step, after optimizer.step():\n"
        "scheduler.step()",
    )
