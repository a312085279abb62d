from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.prescription import optimizer_name, rounded
from stabdiag.analysis.step_size import schedule, weight_decay
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("lower-weight-decay", title="Lower the weight decay")
def lower_weight_decay(run: Run, finding: Finding) -> Change | None:
    """Lets the weights keep the scale that the gradient gives them.

    It costs some regularization. It worked when the weight norms level off and no longer fall.
    Biases and normalization gains want none at all.
    """
    decay, plan = weight_decay(run), schedule(run)
    if not decay:
        return None
    pull = decay * float(plan.rate.values.sum())
    target = rounded(decay / max(10.0 * pull, 10.0))
    adds_up = f": over {run.steps} steps it adds up to {figure(pull)}, and 0.1 is plenty" if pull > 0 else ""
    return Change(
        f"weight decay {figure(decay)} → {figure(target)}{adds_up}",
        f"optimizer = torch.optim.{optimizer_name(run)}(model.parameters(), weight_decay={target:g})"
        "  # other arguments as before",
        {"weight_decay": target},
    )
