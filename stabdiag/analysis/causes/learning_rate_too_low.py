from __future__ import annotations

import numpy as np

from stabdiag.analysis.anatomy import gradient_slope
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.step_size import matrix_ratio, schedule
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "learning-rate-too-low",
    title="The learning rate is too low",
    fixes=("raise-learning-rate", "fix-schedule"),
)
def learning_rate_too_low(run: Run, finding: Finding) -> Weight | None:
    """The updates are too small to get anywhere in the steps there are.

    The median update ratio of the weight matrices stays below 1e-4 (1e-3 to 1e-2 is usual) although
    gradients arrive everywhere. Its look-alikes: vanishing gradients (small in the early layers only,
    or everywhere under plain SGD), a schedule that has run out (the rate was fine and fell), and an
    optimizer that holds other parameters (ratio exactly 0). In a game of two sides it is the rate of the one
    that loses, beside that of the other.

    Reference: Karpathy, A Recipe for Training Neural Networks, 2019
    """
    case, plan = Case(), schedule(run)
    gap = finding.facts.get("lr_ratio")
    if gap is not None:  # of two sides of a game
        own = figure(finding.facts["lr"])
        case.speaks_for(
            0.85 * ramp(gap, 2, 20),
            f"the side that loses learns at {own}, the other {figure(gap)} times as fast",
        )
        return case.weight()
    ratios = matrix_ratio(run, finding.onset_step, finding.last_step)
    if len(ratios):
        middle = float(np.median(ratios.values))
        if middle > 0:
            case.speaks_for(
                0.85 * ramp(middle, 3e-4, 1e-5),
                f"the median update ratio was {figure(middle)}, where 0.003 is usual",
            )
        case.speaks_against(0.9 * ramp(middle, 3e-4, 1e-3), f"the updates were not small ({figure(middle)})")
    rate = plan.at(finding.onset_step)
    if rate is not None and rate > 0:
        case.speaks_for(0.4 * ramp(rate, 1e-4, 1e-6), f"the learning rate was {figure(rate)}")
        # What lasts may have begun before the schedule ran out: the typical rate of that time tells.
        typical = min(rate, float(np.median(plan.rate.within(finding.onset_step, finding.last_step).values)))
        case.speaks_against(
            0.5 * ramp(plan.peak / typical, 10, 100) if typical > 0 else 0.0,
            f"it had been {figure(plan.peak)} before: the schedule, not its peak",
        )
    slope = gradient_slope(run, finding.onset_step)
    if slope is not None and slope.straightness > 0.5:
        case.speaks_against(
            0.6 * ramp(slope.per_layer, 0.15, 0.5),
            f"gradients vanish toward the input, {slope.per_layer:.2f} decades a layer",
        )
    return case.weight()
