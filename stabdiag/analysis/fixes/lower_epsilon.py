from __future__ import annotations

from stabdiag.analysis.adaptive import adaptive, epsilon
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.causes.optimizer_epsilon import gradient_rms
from stabdiag.analysis.prescription import optimizer_name, rounded
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

LEAST = 1e-15


@fix("lower-epsilon", title="Lower the optimizer's epsilon")
def lower_epsilon(run: Run, finding: Finding) -> Change | None:
    """Brings the epsilon to a thousandth of the gradients, where it only guards against zero.

    It costs nothing while the moments are kept in float32; in bfloat16 an epsilon below 1e-8 is as good as
    none. It worked when the update is between 0.17 and 0.39 learning rates in rms, and the loss falls faster.
    """
    eps, size = epsilon(run), gradient_rms(run, finding)
    if eps is None or finding.signature == "adam-stale-second-moment":
        return None
    target = rounded(max(min(size / 1000 if size else eps / 1000, eps / 10), LEAST))
    if target >= eps:
        return None
    because = f": the gradients have {figure(size)} in rms" if size else ""
    optimizer = adaptive(run)
    trainer = optimizer.of_trainer(f"adam_epsilon={target:g}")
    return Change(
        f"epsilon {figure(eps)} → {figure(target)}{because}{trainer}",
        f"optimizer = torch.optim.{optimizer_name(run)}(model.parameters(), "
        f"{optimizer.with_epsilon(target)})  # other arguments as before",
        {"eps": target},
    )
