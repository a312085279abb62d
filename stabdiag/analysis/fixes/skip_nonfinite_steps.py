from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("skip-nonfinite-steps", title="Leave out updates with non-finite gradients")
def skip_nonfinite_steps(run: Run, finding: Finding) -> Change:
    """Makes no optimizer step where the gradient norm is NaN or infinite, so that the weights survive.

    It costs one synchronisation a step, and treats the symptom: find the origin as well. It worked when
    the weights stay finite and skips are rare. If every step is skipped the fault is permanent.
    """
    return Change(
        f"skip updates whose gradient is not finite: the one of step {finding.onset_step} spoiled the "
        "weights or "
        "would have",
        "norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])\n"
        "if torch.isfinite(norm):\n"
        "    optimizer.step()\n"
        "optimizer.zero_grad(set_to_none=True)",
        {"skip_nonfinite": 1.0},
    )
