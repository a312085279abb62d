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
    rate = schedule(run).peak
    ratios = matrix_ratio(run, finding.onset_step, finding.last_step).values
    middle = float(np.median(ratios)) if len(ratios) else 0.0
    if rate <= 0 or middle <= 0 or middle >= USUAL_RATIO:
        return None
    target = rounded(rate * min(USUAL_RATIO / middle, 100.0))
    return Change(
        f"learning rate {figure(rate)} → {figure(target)}: the median update ratio was {figure(middle)}, "
        "where "
        f"{USUAL_RATIO:g} is "
        "usual",
        f"optimizer = torch.optim.{optimizer_name(run)}(model.parameters(), lr={target:g})"
        "  # other arguments as before",
        {"lr_scale": target / rate},
    )
