from __future__ import annotations

import numpy as np

from stabdiag.analysis.anatomy import gradient_slope
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.pretrained import pretrained
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "missing-residual",
    title="A deep stack has no skip connections",
    fixes=("add-residual", "add-normalization"),
)
def missing_residual(run: Run, finding: Finding) -> Weight | None:
    """Every layer stands in the only way from the input to the loss, so their gains multiply.

    Skip connections leave no module behind that could be seen, but they forbid one thing: a gradient
    norm that changes by the same factor at each of many layers. A straight line of log gradient norm
    against depth, over six layers and more, is the sign. A saturating activation makes the same line;
    residual connections cure both. They also carry past a layer what tells tokens apart: where that is lost
    with depth at the first step, before anything was learned, they are missing (of a model that was trained
    before, that says nothing).

    Reference: He et al., Deep Residual Learning, https://arxiv.org/abs/1512.03385; Dong et al.,
    Attention is not all you need, https://arxiv.org/abs/2103.03404
    """
    case = Case()
    slope = gradient_slope(run, finding.onset_step)
    if slope is not None and slope.layers >= 6:
        case.speaks_for(
            0.6 * ramp(slope.straightness, 0.5, 0.95) * ramp(abs(slope.per_layer), 0.15, 0.6),
            f"the gradient norm changes by the same {abs(slope.per_layer):.2f} decades at each of "
            f"{slope.layers} layers, which skip connections would prevent",
        )
    if finding.signature == "rank-collapse" and finding.onset_step == 0 and pretrained(run) is None:
        case.speaks_for(*_lost_with_depth(run))
    return case.weight()


def _lost_with_depth(run: Run) -> tuple[float, str]:
    """How strongly it speaks that tokens were alike in depth in the first record, and how that is told."""
    table = run.table("tokens.spread")
    rows = np.flatnonzero(np.isfinite(table.values).any(axis=1))
    first = table.values[rows[0]] if len(rows) else np.full(len(table.sites), np.nan)
    order = sorted(np.flatnonzero(np.isfinite(first) & (first > 0)), key=lambda i: table.sites[i].order)
    if len(order) < 3:
        return 0.0, ""
    shallow, deep = float(first[order[: len(order) // 3]].max()), float(first[order[-1]])
    fall = float(np.log10(shallow / deep))
    return (
        0.7 * ramp(fall, 0.5, 1.0),
        f"at step {int(table.steps[rows[0]])} the share by which tokens differ fell from {figure(shallow)} "
        f"to {figure(deep)} with depth, which skip connections would carry past",
    )
