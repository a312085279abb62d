from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import Case
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "wrong-mode",
    title="The model is in the wrong mode",
    fixes=("set-train-mode",),
)
def wrong_mode(run: Run, finding: Finding) -> Weight | None:
    """`model.eval()` before an evaluation, and no `model.train()` after it; or a model that was loaded in
    evaluation mode; or an evaluation without `model.eval()`.

    The flags of the modules tell it outright. Dropout that does not drop lets a model overfit; batch
    normalization in evaluation mode trains against statistics that do not follow.

    Reference: PyTorch, torch.nn.Module.train
    """
    case = Case()
    if finding.signature == "mode-mismatch":
        case.speaks_for(0.95, "the flags of the modules say so")
        return case.weight()
    if "mode.training" not in run:
        return None
    table = run.window(0, max(finding.onset_step, 0)).table("mode.training")
    chosen = [i for i, site in enumerate(table.sites) if site.trainable and site.optimized]
    called = [i for i, site in enumerate(table.sites) if not site.optimized]
    if not len(table.steps) or not chosen:
        return None
    asleep = table.values[-1] < 0.5
    if asleep[called].any() and asleep[chosen].any():
        share = float(np.mean(asleep[chosen]))
        case.speaks_for(
            0.7, f"{share:.0%} of the modules that depend on it were in evaluation mode at the onset"
        )
    return case.weight()
