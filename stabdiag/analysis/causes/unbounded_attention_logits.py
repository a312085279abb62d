from __future__ import annotations

import numpy as np

from stabdiag.analysis.attention import attention_layers
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.step_size import HEALTHY_RATIO, ratio_near
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "unbounded-attention-logits",
    title="Nothing bounds the logits of attention",
    fixes=("qk-clip", "qk-norm", "attention-softcap", "lower-learning-rate"),
)
def unbounded_attention_logits(run: Run, finding: Finding) -> Weight | None:
    """Queries and keys are products of weights that may grow for ever, and their product grows twice as fast.

    What tells it from a learning rate that is too high for all: the logits grow by a large factor before
    anything else moves, while the updates of the weights as a whole stay small. Logits that are large from
    the first step on are a matter of the initialization.

    Reference: Dehghani et al., Scaling Vision Transformers to 22 Billion Parameters,
    https://arxiv.org/abs/2302.05442; Kimi K2, https://arxiv.org/abs/2507.20534
    """
    if "attention.max_logit" not in run:
        return None
    try:
        table = attention_layers(run, "attention.max_logit")
    except NotEvaluable:
        return None
    known = np.isfinite(table.values)
    if finding.signature == "weight-norm-drift":
        # Weights of something else than attention may grow while its logits do.
        known &= [any(site.startswith(f"{name}.") for site in finding.sites) for name in table.names]
    if not known.any():
        return None
    highest = np.max(table.values, axis=1, where=known, initial=-np.inf)
    at = min(int(np.searchsorted(table.steps, finding.onset_step)), len(highest) - 1)
    first, reached = max(float(highest[0]), 1e-6), float(highest[at:].max())
    early = float(highest[: at + 1].max())
    if reached < 15:
        return None
    case = Case()
    case.speaks_for(
        0.7 * ramp(reached, 30, 300) * ramp(reached / first, 1.5, 10),
        f"the largest attention logit grew from {figure(first)} to {figure(reached)}",
    )
    case.speaks_for(
        0.3 * ramp(early, 30, 100), f"it was {figure(early)} by step {table.steps[at]}, when it began"
    )
    near = ratio_near(run, finding.onset_step)
    if near is not None:
        case.speaks_for(
            0.3 * ramp(near[1], HEALTHY_RATIO, HEALTHY_RATIO / 3) * ramp(reached, 30, 100),
            f"the updates as a whole were small (median ratio {figure(near[1])})",
        )
        case.speaks_against(
            0.6 * ramp(near[1], HEALTHY_RATIO, 0.3),
            f"all weights were changed by much: the median update ratio was {figure(near[1])}",
        )
    case.speaks_against(0.8 * ramp(first, 30, 100), "they were large at the first step")
    return case.weight()
