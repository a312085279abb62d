from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.history import history
from stabdiag.analysis.prescription import usual_gradient_norm
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

MULTIPLE = 1.5
"""Of the usual norm: the tails of healthy runs lie within, and little of a spike does."""


@fix("adaptive-clipping", title="Clip by the run's own gradient norms")
def adaptive_clipping(run: Run, finding: Finding) -> Change | None:
    """Clips at a multiple of the median norm of the last steps, so that the limit follows the training.

    It costs one number to remember a step. Gradients that grow without end take the limit along. It
    worked when the norm after clipping follows the usual one through a spike, and few other steps are
    clipped.
    """
    usual = usual_gradient_norm(run, finding.onset_step)
    if usual is None:
        return None
    peak = history(run, "run.grad_norm").peak(finding.onset_step - 1, finding.last_step)
    saw = f", and it rose to {figure(peak[1])} at step {peak[0]}" if peak and peak[1] > 2 * usual else ""
    return Change(
        f"clip at {MULTIPLE:g} times the median norm of the last 128 steps: it was {figure(usual)}{saw}",
        "norms = collections.deque(maxlen=128)  # before the loop\n"
        f"limit = {MULTIPLE:g} * statistics.median(norms) if len(norms) > 8 else float('inf')  # before "
        "optimizer.step()\n"
        "norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), limit))\n"
        "norms.append(min(norm, limit))",
        {"clip_multiple": MULTIPLE},
    )
