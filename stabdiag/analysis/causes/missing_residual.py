from __future__ import annotations

from stabdiag.analysis.anatomy import gradient_slope
from stabdiag.analysis.case import Case, ramp
from stabdiag.analysis.catalogue import Weight, cause
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
    residual connections cure both.

    Reference: He et al., Deep Residual Learning, https://arxiv.org/abs/1512.03385; Dong et al.,
    Attention is not all you need, https://arxiv.org/abs/2103.03404
    """
    slope = gradient_slope(run, finding.onset_step)
    if slope is None or slope.layers < 6:
        return None
    case = Case()
    case.speaks_for(
        0.6 * ramp(slope.straightness, 0.5, 0.95) * ramp(abs(slope.per_layer), 0.15, 0.6),
        f"the gradient norm changes by the same {abs(slope.per_layer):.2f} decades at each of "
        f"{slope.layers} layers, which skip connections would prevent",
    )
    return case.weight()
