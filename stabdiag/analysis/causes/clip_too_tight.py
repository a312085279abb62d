from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.analysis.step_size import second_beta
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "clip-too-tight",
    title="The gradient is clipped too tightly",
    fixes=("loosen-clipping", "adaptive-clipping"),
)
def clip_too_tight(run: Run, finding: Finding) -> Weight | None:
    """The limit of the gradient norm lies far below the usual norm, so that each step has one length.

    It comes with a limit that was inherited from another loss reduction or model, or is compared with
    gradients that a GradScaler has scaled up. Its look-alikes: gradients that have grown since (the limit was
    right before), and an optimizer that divides by their size, to which a factor is nothing.

    Reference: Kumar et al., ZClip, https://arxiv.org/abs/2504.02507
    """
    before = history(run, "run.grad_norm").within(finding.onset_step, finding.last_step)
    after = history(run, "run.clipped_grad_norm").within(finding.onset_step, finding.last_step)
    if not len(before) or len(before) != len(after):
        return None
    known = np.isfinite(before.values) & np.isfinite(after.values) & (before.values > 0)
    if known.sum() < 10:
        return None
    ratio = after.values[known] / before.values[known]
    share, middle = float(np.mean(ratio < 0.99)), float(np.median(ratio))
    case = Case()
    if share > 0.5:
        case.speaks_for(
            0.85 * ramp(middle, 0.7, 0.1),
            f"{share:.0%} of the steps were clipped, to {figure(middle)} of their norm in the median",
        )
    scale = history(run, "run.loss_scale").at(finding.last_step) or 1.0
    case.speaks_for(
        0.8 * ramp(middle * scale**0.5, 1.0, 0.1) if scale > 1 else 0.0,
        f"the norm was {figure(float(np.median(before.values[known])))} with a loss scale of "
        f"{figure(scale)}: it "
        "was clipped before it was unscaled",
    )
    if second_beta(run) is not None and finding.signature != "clip-saturation":
        case.speaks_against(0.8, "Adam divides by the size of the gradients, clipped or not")
    earlier = history(run, "run.grad_norm").usual(finding.onset_step)
    if earlier is not None:
        grown = float(np.median(before.values[known])) / earlier
        case.speaks_against(
            0.6 * ramp(grown, 3, 30), f"the gradients had been {figure(grown)} times smaller before"
        )
    return case.weight()
