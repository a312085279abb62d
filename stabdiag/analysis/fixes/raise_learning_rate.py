from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.prescription import optimizer_name, rounded
from stabdiag.analysis.step_size import USUAL_RATIO, matrix_ratio, schedule
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("raise-learning-rate", title="Raise the learning rate")
def raise_learning_rate(run: Run, finding: Finding) -> Change | None:
    """Lengthens every update, to a median update ratio of the weight matrices near 0.003.

    It costs safety: raise it in steps of 3 to 10 and with a warm-up. It worked when the update ratio
    lies between 0.001 and 0.01 and the loss falls faster. It cannot help where gradients vanish.
    """
    gap = finding.facts.get("lr_ratio")
    if gap is not None:
        return _of_the_side_that_loses(finding.facts["lr"], gap, finding.sites[-1])
    rate = schedule(run).peak
    ratios = matrix_ratio(run, finding.onset_step, finding.last_step).values
    middle = float(np.median(ratios)) if len(ratios) else 0.0
    if rate <= 0 or middle <= 0 or middle >= USUAL_RATIO:
        return None
    # An update of gradient descent is small where the gradient is, too: no matter of the rate alone.
    most = 100.0 if "SGD" in optimizer_name(run) else float("inf")
    target = rounded(rate * min(USUAL_RATIO / middle, most))
    return Change(
        f"learning rate {figure(rate)} → {figure(target)}: the median update ratio was {figure(middle)}, "
        "where "
        f"{USUAL_RATIO:g} is "
        "usual",
        f"optimizer = torch.optim.{optimizer_name(run)}(model.parameters(), lr={target:g})"
        "  # other arguments as before",
        {"lr_scale": target / rate},
    )


def _of_the_side_that_loses(rate: float, gap: float, side: str) -> Change | None:
    if gap <= 2:
        return None
    target = rounded(rate * gap)
    optimizer = f"optimizer_of_{side.replace('.', '_').lower()}"
    return Change(
        f"learning rate of {side} {figure(rate)} → {figure(target)}: the other learns {figure(gap)} times as "
        "fast",
        f'for group in {optimizer}.param_groups:\n    group["lr"] = {target:g}',
    )
