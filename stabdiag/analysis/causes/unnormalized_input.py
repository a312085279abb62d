from __future__ import annotations

from stabdiag.analysis.batches import usual_scale
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "unnormalized-input",
    title="The inputs are far from zero mean and unit scale",
    fixes=("normalize-input", "add-normalization"),
)
def unnormalized_input(run: Run, finding: Finding) -> Weight | None:
    """Floating inputs go into the first layer at a scale that its initialization is not made for.

    Pixels of 0 to 255, raw prices or times: the first activations and gradients are as many times too
    large, at every step from the first. A single unusual batch is another matter.

    Reference: LeCun et al., Efficient BackProp, 1998, section 4.3
    """
    scale = usual_scale(run)
    if scale is None:
        return None
    name, rms, mean = scale
    case = Case()
    case.speaks_for(
        0.85 * ramp(rms, 5, 100),
        f"{name} has an rms of {figure(rms)} and a mean of {figure(mean)} in the median batch, where 1 and 0 "
        "are meant",
    )
    case.speaks_for(0.6 * ramp(rms, 0.02, 1e-4), f"{name} has an rms of only {figure(rms)}, where 1 is meant")
    case.speaks_against(
        0.5 * ramp(finding.onset_step + 1, 50, 1000), f"it began only at step {finding.onset_step}"
    )
    return case.weight()
