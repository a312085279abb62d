from __future__ import annotations

from stabdiag.analysis.case import Case, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "precision-underflow",
    title="Gradients fall below the smallest number of the format",
    fixes=("loss-scaling", "use-bfloat16"),
)
def precision_underflow(run: Run, finding: Finding) -> Weight | None:
    """float16 ends at 6e-8, and gradients of small values become zero on their way back.

    A loss scale lifts them. Without one, or with one that has collapsed, the first layers learn nothing.
    bfloat16 and float32 reach down to 1e-38, and this is not the cause.

    Reference: Micikevicius et al., Mixed Precision Training, https://arxiv.org/abs/1710.03740
    """
    half = [s for s in run.sites("output") if "float16" in s.dtype and "bfloat16" not in s.dtype]
    scale = history(run, "run.loss_scale").finite()
    if not half and not len(scale):
        return None
    if finding.signature not in (
        "low-precision-loss",
        "vanishing-gradient",
        "update-ratio-low",
        "loss-scale-thrash",
    ):
        return None
    case, share = Case(), finding.facts.get("underflow", 0.0)
    case.speaks_for(
        0.85 * ramp(share, 0.02, 0.1),
        f"{share:.0%} of the gradients at {finding.sites[0] if finding.sites else 'a layer'} would be zero",
    )
    if len(scale):
        end = float(scale.values[-1])
        case.speaks_for(0.6 * ramp(end, 8, 0.5), f"the loss scale has fallen to {end:.3g}")
        case.speaks_against(0.6 * ramp(end, 100, 1000), f"a loss scale of {end:.0f} lifts them")
    elif half:
        case.speaks_for(0.3, f"{half[0].name} computes in float16 without a loss scale")
    return case.weight()
