from __future__ import annotations

from stabdiag.analysis.case import Case, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "label-noise",
    title="A part of the labels is wrong",
    fixes=("relabel-data", "early-stopping", "regularize"),
)
def label_noise(run: Run, finding: Finding) -> Weight | None:
    """Annotation errors, ambiguous classes, a join that went wrong for some files.

    Labels contradict predictions that are sure, in a few per cent of the rows, and go on doing so until the
    model has learned them one by one. In one batch alone it is the batch that is damaged. Labels that
    are uncertain by nature look the same.

    Reference: Arpit et al., A Closer Look at Memorization in Deep Networks, https://arxiv.org/abs/1706.05394
    """
    case = Case()
    if finding.signature == "bad-batch":
        samples = finding.facts.get("batches", 1.0)
        case.speaks_for(0.4 * ramp(samples, 3, 20), f"{samples:.0f} batches had such labels")
        return case.weight()
    if finding.signature not in ("overfitting", "label-noise-memorization"):
        return None
    shares = (
        history(run, "targets.surprised").within(finding.onset_step - 20, finding.onset_step + 20).finite()
    )
    right = (
        history(run, "targets.agreement").within(finding.onset_step - 20, finding.onset_step + 20).finite()
    )
    if not len(shares) or not len(right):
        return None
    share, agreed = float(shares.values.mean()), float(right.values.mean())
    case.speaks_for(
        0.8 * ramp(share, 0.01, 0.04),
        f"{share:.1%} of the labels contradicted a sure prediction around step {finding.onset_step}",
    )
    case.speaks_against(
        0.8 * ramp(agreed, 0.5, 0.3), f"only {agreed:.0%} of the labels can be foretold at all"
    )
    return case.weight()
