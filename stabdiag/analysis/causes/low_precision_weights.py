from __future__ import annotations

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "low-precision-weights",
    title="Weights of 16 bits swallow their updates",
    fixes=("fp32-master-weights", "raise-learning-rate"),
)
def low_precision_weights(run: Run, finding: Finding) -> Weight | None:
    """The parameters themselves are bfloat16 or float16, without a copy in 32 bits.

    bfloat16 keeps 8 bits: what is less than 2^-9 of a weight is rounded away. The smaller the learning rate
    against the weights, the more is lost, so the end of a schedule loses most.

    Reference: Zamirai et al., Revisiting BFloat16 Training, https://arxiv.org/abs/2010.06192
    """
    narrow = [site for site in run.sites("weight") or run.sites("update") if site.dtype.endswith("float16")]
    share = finding.facts.get("unchanged", 0.0)
    if not narrow or finding.signature not in ("low-precision-loss", "update-ratio-low", "loss-plateau"):
        return None
    case = Case()
    case.speaks_for(
        0.9 * ramp(share, 0.3, 0.6),
        f"{share:.0%} of the coordinates of {finding.sites[0] if finding.sites else 'a weight'} stay as they "
        f"were, in {narrow[0].dtype.removeprefix('torch.')}",
    )
    rate = finding.facts.get("lr", 0.0)
    case.speaks_for(0.3 * ramp(rate, 1e-3, 1e-5), f"at a learning rate of {figure(rate)}" if rate > 0 else "")
    if not share:
        case.speaks_for(0.2, f"{narrow[0].name} is {narrow[0].dtype.removeprefix('torch.')}")
    return case.weight()
