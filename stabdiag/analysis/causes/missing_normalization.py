from __future__ import annotations

from stabdiag.analysis.anatomy import activation_slope, gradient_slope, matrices, normalized
from stabdiag.analysis.case import Case, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "missing-normalization",
    title="The network is deep and nothing normalizes its activations",
    fixes=("add-normalization", "rescale-init", "clip-gradients"),
)
def missing_normalization(run: Run, finding: Finding) -> Weight | None:
    """A deep stack without normalization layers keeps any deviation of scale, and multiplies it.

    The types of the recorded modules tell whether there is a normalization; the slope of activations
    and gradients with depth tells whether one is missed. Shallow networks (up to four weight layers)
    do without. A normalization that a module computes in its own code is not seen.

    Reference: Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167; Ba et al.,
    Layer Normalization, https://arxiv.org/abs/1607.06450
    """
    layers = len(matrices(run.sites("weight") or run.sites("grad")))
    if normalized(run) is not False or layers < 4:
        return None
    case = Case()
    case.speaks_for(
        0.35 * ramp(layers, 3, 12), f"none of the {layers} weight layers is followed by a normalization"
    )
    slopes = (activation_slope(run, finding.onset_step), gradient_slope(run, finding.onset_step))
    steepest = max((s for s in slopes if s), key=lambda s: abs(s.per_layer), default=None)
    if steepest is not None:
        case.speaks_for(
            0.4 * steepest.straightness * ramp(abs(steepest.per_layer), 0.1, 0.5),
            f"the scale of the signal changes by {abs(steepest.per_layer):.2f} decades a layer",
        )
    return case.weight()
