from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.history import history
from stabdiag.analysis.prescription import rounded, usual_gradient_norm
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("clip-gradients", title="Clip the gradient norm")
def clip_gradients(run: Run, finding: Finding) -> Change | None:
    """Scales the gradient down whenever its norm passes a limit a little above the usual.

    It costs next to nothing, and hides the symptom of a forward pass that explodes: there it prevents
    NaN but not the bad loss. It worked when the norm after clipping stays at the limit during spikes
    and less than a tenth of the steps are clipped. With a GradScaler, unscale before clipping.
    """
    norms, usual = history(run, "run.grad_norm"), usual_gradient_norm(run, finding.onset_step)
    peak = norms.peak(finding.onset_step - 1, max(finding.last_step, finding.onset_step))
    if usual is None:
        return None
    limit = rounded(1.5 * usual)
    clipped = history(run, "run.clipped_grad_norm").usual(finding.last_step + 1)
    if clipped is not None and clipped < 0.9 * usual and clipped <= limit:
        return None  # it is clipped, at this limit or below, already
    saw = f", and it rose to {figure(peak[1])} at step {peak[0]}" if peak and peak[1] > 2 * usual else ""
    return Change(
        f"clip the gradient norm at {figure(limit)}: it was {figure(usual)} in the median{saw}",
        f"torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm={limit:g})  # before optimizer.step()",
        {"clip_norm": limit},
    )
