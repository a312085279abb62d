from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.analysis.step_size import HEALTHY_RATIO, ratio_near
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "unbounded-output-logits",
    title="Nothing holds the output logits where they are",
    fixes=("gradient-penalty", "z-loss", "raise-weight-decay", "regularize", "lower-learning-rate"),
)
def unbounded_output_logits(run: Run, finding: Finding) -> Weight | None:
    """A softmax is blind to what all its logits have in common, and a classifier that is sure gains by
    being surer: both let the logits grow for ever.

    It is told by log Z or the mean logit, which move steadily while the loss does not gain. Where
    the hidden state explodes with them, the learning rate is the deeper cause. The logits of a
    discriminator that has won grow the same way, and so does the score of a Wasserstein critic whose slope
    nothing bounds: the loss and the gradients of both players grow with it.

    Reference: Chowdhery et al., PaLM, https://arxiv.org/abs/2204.02311; Mescheder et al., Which Training
    Methods for GANs do actually Converge?, https://arxiv.org/abs/1801.04406
    """
    case = Case()
    if finding.signature == "gan-imbalance":
        share = finding.facts.get("loss_share", 1.0)
        case.speaks_for(
            0.3 * ramp(share, 0.1, 0.01),
            f"the loss of the side that wins fell to {figure(100 * share)} % of its start",
        )
    growth = finding.facts.get("grad_norm_growth", 1.0) if finding.signature == "loss-divergence" else 1.0
    if growth > 1.0:
        case.speaks_for(
            0.8 * ramp(growth, 10, 100),
            f"loss and gradient norm of {finding.sites[0]} grew together, {figure(growth)}-fold, and the "
            "gradient of the other player with them: the slope of the critic is a factor of both",
        )
    for site in run.sites("logits"):
        for series, what in (("logits.log_z", "log Z"), ("logits.mean", "the mean logit")):
            values = history(run, series, site.name).finite()
            moved = np.abs(values.values)
            if len(moved) < 8:
                continue
            rise = float(np.median(moved[-3:]) - np.median(moved[:3]))
            case.speaks_for(
                0.7 * ramp(rise, 2, 50),
                f"{what} of {site.name} moved from {figure(moved[0])} to {figure(moved[-1])}",
            )
    near = ratio_near(run, finding.onset_step)
    if near is not None and finding.signature != "gan-imbalance" and growth == 1.0:
        case.speaks_against(
            0.8 * ramp(near[1], HEALTHY_RATIO, 0.3), f"the median update ratio was {figure(near[1])}"
        )
    return case.weight()
