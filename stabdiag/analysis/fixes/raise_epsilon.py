from __future__ import annotations

from stabdiag.analysis.adaptive import adaptive, epsilon
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.causes.optimizer_epsilon import gradient_rms
from stabdiag.analysis.prescription import optimizer_name, rounded
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("raise-epsilon", title="Raise the optimizer's epsilon")
def raise_epsilon(run: Run, finding: Finding) -> Change | None:
    """Bounds the update of coordinates that were silent for long: it is at most gradient over epsilon.

    It costs speed where gradients are smaller than it, so it stays at a tenth of their size. It worked when
    the update stays below 0.5 learning rates in rms after a calm phase.
    """
    eps, size = epsilon(run), gradient_rms(run, finding)
    if eps is None or size is None or finding.signature != "adam-stale-second-moment":
        return None
    target = rounded(size / 10)
    if target <= 10 * eps:
        return None
    optimizer = adaptive(run)
    return Change(
        f"epsilon {figure(eps)} → {figure(target)}, a tenth of the gradients there ({figure(size)} in rms)"
        f"{optimizer.of_trainer(f'adam_epsilon={target:g}')}",
        f"optimizer = torch.optim.{optimizer_name(run)}(model.parameters(), "
        f"{optimizer.with_epsilon(target)})  # other arguments as before",
        {"eps": target},
    )
