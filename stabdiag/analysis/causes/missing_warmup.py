from __future__ import annotations

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.analysis.step_size import HEALTHY_RATIO, matrix_ratio, schedule
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "missing-warmup",
    title="The learning rate starts, or rises, too fast",
    fixes=("add-warmup", "lower-learning-rate", "rollback"),
    moves_first=("update.*", "optimizer.step"),
)
def missing_warmup(run: Run, finding: Finding) -> Weight | None:
    """The learning rate is near its peak before the curvature of the fresh weights allows it.

    It shows in the first hundred steps, or up to three times the warm-up, and the same rate is fine
    later. No warm-up is no fault by itself: many runs need none. Its look-alike is a peak that is too
    high at any time: there the update ratio stays above 0.03 after the first hundred steps.

    Reference: Gilmer et al., A Loss Curvature Perspective on Training Instability in Deep Learning,
    https://arxiv.org/abs/2110.04369
    """
    case, plan, onset = Case(), schedule(run), finding.onset_step
    if not len(plan.rate) or onset > max(100, 3 * plan.warmup):
        return None
    early = matrix_ratio(run, 1, 20).peak(1, 20)
    if plan.warmup < 10:
        case.speaks_for(
            0.3,
            f"the learning rate was {figure(plan.peak)} from step {plan.warmup} on, without a warm-up, and "
            f"it began at step {onset}",
        )
    else:
        case.speaks_for(0.3, f"it began at step {onset}, in or soon after a warm-up of {plan.warmup} steps")
    if early is not None:
        said = f"the median update ratio was {figure(early[1])} at step {early[0]}"
        case.speaks_for(0.5 * ramp(early[1], 2 * HEALTHY_RATIO, 0.5), said)
        if plan.warmup < 10:
            case.speaks_against(0.8 * ramp(early[1], 2 * HEALTHY_RATIO, HEALTHY_RATIO), f"{said}: healthy")
    late = matrix_ratio(run, 100, 300).peak(100, 300)
    if late is not None:
        case.speaks_against(
            0.6 * ramp(late[1], HEALTHY_RATIO, 0.1),
            f"it was still {figure(late[1])} at step {late[0]}, long after a warm-up would have ended",
        )
    first, last = (history(run, "run.loss").at(step) for step in (0, run.steps - 1))
    if first is not None and last is not None and last > 0.95 * first and run.steps > onset + 50:
        case.speaks_against(0.4, f"the loss never came back ({figure(last)} in the end)")
    return case.weight()
