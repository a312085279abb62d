from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "too-little-data",
    title="More parameters than the data can tell",
    fixes=("early-stopping", "regularize", "more-data"),
)
def too_little_data(run: Run, finding: Finding) -> Weight | None:
    """The model can hold all of its training data, and has had time to.

    The training loss falls towards zero while evaluations get worse. It is the more likely the more
    parameters there are for each target that was seen.

    Reference: Zhang et al., Understanding Deep Learning Requires Rethinking Generalization,
    https://arxiv.org/abs/1611.03530
    """
    case = Case()
    if finding.signature == "overfitting":
        gap = finding.facts["end"] - finding.facts["train_end"]
        case.speaks_for(
            0.5, f"evaluations cost {figure(gap)} more than training, and the gap has grown since its best"
        )
    seen, parameters = _targets(run, finding), run.fact("model", "trainable")
    if seen and isinstance(parameters, int) and parameters > 0:
        case.speaks_for(
            0.4 * ramp(parameters / seen, 1, 10),
            f"{figure(float(parameters))} parameters are taught by {figure(seen)} targets",
        )
    return case.weight() if finding.signature in ("overfitting", "data-repetition") else None


def _targets(run: Run, finding: Finding) -> float:
    """Different targets, where it is known how many batches differ; 0 where it is not."""
    if "distinct" not in finding.facts:
        return 0.0
    for series in ("run.tokens", "run.samples"):
        if series in run and (counts := run.table(series).first()).size and np.nanmax(counts, initial=0) > 0:
            return float(np.nanmedian(counts)) * finding.facts["distinct"]
    return 0.0
