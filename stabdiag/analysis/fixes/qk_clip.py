from __future__ import annotations

import math

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.history import history
from stabdiag.analysis.prescription import rounded
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

LIMIT = 20.0
"""The best of the limits tried on a small transformer: 20 ended at 3.68, 50 at 3.83, none at 4.23."""


@fix("qk-clip", title="Rescale queries and keys where their logit passes a limit")
def qk_clip(run: Run, finding: Finding) -> Change | None:
    """Multiplies the weights of queries and keys by the root of limit over logit, after each step in which a
    logit passed the limit.

    It costs one pass over the logits, next to nothing where they are recorded anyway. Where queries and
    keys are normalized it does nothing. It worked when the largest logit stays at the limit and the entropy
    above 0.3 of the largest possible: it cured a small transformer at 30 times its learning rate to 0.6 of
    the way.
    """
    layers = (s.name for s in run.sites("attention"))
    # Of weights that drift, those of queries and keys lie within their attention.
    layer = next((n for n in layers if any(f"{site}.".startswith(f"{n}.") for site in finding.sites)), None)
    if layer is None:
        return None
    logits = history(run, "attention.max_logit", layer)
    usual, peak = (
        logits.usual(finding.onset_step, least=2),
        logits.peak(finding.onset_step, finding.last_step),
    )
    if peak is None or peak[1] <= LIMIT:
        return None
    limit = rounded(max(LIMIT, 1.5 * usual if usual is not None and usual < peak[1] / 4 else LIMIT))
    return Change(
        f"rescale queries and keys of {layer} when a logit passes {figure(limit)}: the largest was "
        f"{figure(peak[1])} at step {peak[0]}; by {figure(math.sqrt(limit / peak[1]))} there",
        f"# after optimizer.step(), for each attention, with its largest logit of the step:\n"
        f"if max_logit > {limit:g}:\n"
        f"    shrink = ({limit:g} / max_logit) ** 0.5\n"
        "    with torch.no_grad():\n"
        f"        attention = model.get_submodule({layer!r})\n"
        "        for projection in (attention.query, attention.key):  # or the rows of a joint one\n"
        "            projection.weight.mul_(shrink)",
        {"max_logit": limit},
    )
