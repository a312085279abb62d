from __future__ import annotations

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "batchnorm-statistics",
    title="The running statistics of batch normalization do not follow",
    fixes=("batchnorm-momentum", "larger-batch"),
)
def batchnorm_statistics(run: Run, finding: Finding) -> Weight | None:
    """Running means and variances are averages over 1 / momentum steps: with a momentum that is too small
    they still hold their first values, 0 and 1, when the model is evaluated.

    A running variance far from that of the batch, in all layers, is the sign. Batches that are too small
    give noise about the right value instead.

    Reference: Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167
    """
    off = finding.facts.get("mismatch")
    if off is None and run.sites("normalization"):
        peaks = [
            history(run, "normalization.mismatch", s.name).at(run.steps) for s in run.sites("normalization")
        ]
        known = sorted(p for p in peaks if p is not None)
        off = known[len(known) // 2] if known else None
    if off is None:
        return None
    case = Case()
    case.speaks_for(
        0.85 * ramp(off, 0.3, 1.0),
        f"evaluation would move the outputs of batch normalization by {figure(off)} standard deviations",
    )
    ratio = finding.facts.get("variance_ratio")
    if ratio is not None:
        case.speaks_for(
            0.4 * ramp(max(ratio, 1 / ratio), 1.2, 3),
            f"the running variance is {figure(ratio)} times that of the batch",
        )
    return case.weight()
