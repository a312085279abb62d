from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "schedule-bug",
    title="The learning-rate schedule is wrong",
    fixes=("fix-schedule", "rollback"),
    moves_first=("run.lr",),
)
def schedule_bug(run: Run, finding: Finding) -> Weight | None:
    """The learning rate jumps, is zero or negative, or decays long before the run ends.

    Usual reasons: the scheduler is stepped once a micro-batch or once a worker, its horizon is not the
    run's, it was not restored after a resume, or it is stepped before the optimizer. The learning-rate
    curve itself tells; its look-alike is a planned milestone, a decay by 10 or less.

    Reference: https://pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate
    """
    case, plan = Case(), schedule(run)
    steps, rates = plan.rate.steps, plan.rate.values
    if not len(rates):
        return None
    abrupt = plan.jump(finding.onset_step - 10, finding.onset_step)
    if abrupt is not None:
        step, before, after = abrupt
        case.speaks_for(
            0.85, f"the learning rate jumped from {figure(before)} to {figure(after)} at step {step}"
        )
    # The first step of a warm-up and the last of a decay may be zero.
    wrong = np.flatnonzero(rates[1:-1] <= 0) + 1
    inside = wrong[steps[wrong] <= finding.last_step]
    if len(inside):
        sign = "negative" if (rates[inside] < 0).any() else "zero"
        case.speaks_for(
            0.8 if len(inside) > 1 else 0.4,
            f"the learning rate was {sign} at {len(inside)} steps, first at step {steps[inside[0]]}",
        )
    starved = np.flatnonzero((rates > 0) & (rates < 0.01 * plan.peak) & (steps > plan.warmup))
    # A rate that is too low holds the loss where it is. It raises none.
    held = finding.signature in ("lr-starvation", "loss-plateau", "context-blind-plateau", "update-ratio-low")
    if held and len(starved) and steps[starved[0]] <= finding.last_step:
        left = 1.0 - float(steps[starved[0]]) / max(run.steps, 1)
        if left > 0.2:
            case.speaks_for(
                0.7 + 0.2 * ramp(left, 0.2, 0.5),
                f"the learning rate was below 1 % of its peak from step {steps[starved[0]]} on, "
                f"with {100 * left:.0f} % of the steps still to come",
            )
    return case.weight()
