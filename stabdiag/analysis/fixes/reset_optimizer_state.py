from __future__ import annotations

from stabdiag.analysis.adaptive import kept
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("reset-optimizer-state", title="Forget the optimizer's moments where the gradients have changed")
def reset_optimizer_state(run: Run, finding: Finding) -> Change | None:
    """Begins anew with moments of the present gradients, in place of those of another phase.

    It costs a warm-up, without which the first updates are whole learning rates. It worked when the update
    stays below 0.5 learning rates in rms after the change; where the change is a jump of the data, the data
    want mending instead.
    """
    beta = kept(run, finding.onset_step)
    if beta is None or beta >= 1 or finding.onset_step < 1:
        return None
    steps = min(max(round(1 / (1 - beta), -1), 20), 1000)
    return Change(
        f"clear the optimizer's state before step {finding.onset_step}, where the gradients change, and "
        "warm the "
        f"learning rate up again over {steps:.0f} steps",
        "optimizer.state.clear()\n"
        f"warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-3, total_iters={steps:.0f})",
        {"reset_at": float(finding.onset_step)},
    )
