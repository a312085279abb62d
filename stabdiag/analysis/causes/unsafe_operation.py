from __future__ import annotations

import numpy as np

from stabdiag.analysis.batches import nonfinite_input
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.analysis.leap import leap
from stabdiag.analysis.step_size import HEALTHY_RATIO, ratio_near
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "unsafe-operation",
    title="An operation outside its domain: log, sqrt, division or exp",
    fixes=("guard-operation", "skip-nonfinite-steps", "fp32-operation"),
)
def unsafe_operation(run: Run, finding: Finding) -> Weight | None:
    """log(0), 0/0, sqrt of a negative number, exp of a large one, or a softmax over nothing but -inf.

    The first non-finite value appears out of quiet: inputs, weights and updates are ordinary just
    before. Where only the gradient is non-finite and the loss is fine, it is a derivative: that of
    sqrt and of a norm is infinite at 0, and `torch.where` lets it through from the branch not taken.
    Where values grew for many steps before, look for divergence instead.

    Reference: https://pytorch.org/docs/stable/notes/faq.html
    """
    if finding.signature != "nonfinite-origin":
        return None
    case, onset = Case(), finding.onset_step
    if _count(run, "grad.nonfinite", onset) and not _count(run, "run.nonfinite", onset):
        case.speaks_for(0.6, f"at step {onset} the gradients were non-finite and the loss was not")
    _quiet_before(run, onset, case)
    seen_inside = "output.nonfinite" in run or "grad.nonfinite" in run
    if not case.weight() and seen_inside:
        case.speaks_for(0.25, f"{finding.sites[0] if finding.sites else 'it'} was finite until step {onset}")
    leapt = leap(run, onset)
    if leapt is not None:
        case.speaks_against(0.9, leapt.words)
    if nonfinite_input(run, onset) is not None:
        case.speaks_against(0.95, "the input itself was not finite")
    return case.weight()


def _quiet_before(run: Run, onset: int, case: Case) -> None:
    """Whether it came out of quiet: updates, gradients and loss were ordinary, or had grown."""
    near, norm = ratio_near(run, onset - 1), history(run, "run.grad_norm").jump(onset - 1)
    if near is not None and near[1] <= HEALTHY_RATIO:
        case.speaks_for(0.4, f"the updates before were ordinary (median ratio {figure(near[1])})")
    elif near is not None:
        case.speaks_against(
            0.6 * ramp(near[1], HEALTHY_RATIO, 0.3), f"the updates before were long (ratio {figure(near[1])})"
        )
    if norm is not None and norm < 3:
        case.speaks_for(0.3, "the gradient norm was ordinary until then")
    elif norm is not None:
        case.speaks_against(
            0.6 * ramp(norm, 3, 100), f"the gradient norm had grown {figure(norm)}-fold before"
        )
    rose = history(run, "run.loss").jump(onset - 1)
    if rose is not None:
        case.speaks_against(0.6 * ramp(rose, 3, 100), f"the loss had grown {figure(rose)}-fold before")


def _count(run: Run, series: str, step: int) -> float:
    if series not in run:
        return 0.0
    values = run.window(step, step).table(series).values
    return float(np.nansum(values))
