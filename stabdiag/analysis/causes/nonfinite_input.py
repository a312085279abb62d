from __future__ import annotations

from stabdiag.analysis.batches import nonfinite_input as find_nonfinite_input
from stabdiag.analysis.case import Case
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "nonfinite-input",
    title="The data hold NaN or infinity",
    fixes=("clean-data", "skip-nonfinite-steps"),
)
def nonfinite_input(run: Run, finding: Finding) -> Weight | None:
    """A batch already held NaN or infinity when it entered the model.

    Everything after it is non-finite as well, so the batch is the origin wherever its own count of
    non-finite values is above 0 at or before the onset. Missing values, divisions in the
    preprocessing and logarithms of zero are the usual reasons.

    Reference: https://pandas.pydata.org/docs/user_guide/missing_data.html
    """
    bad = find_nonfinite_input(run, finding.onset_step)
    if bad is None:
        return None
    case, (name, step) = Case(), bad
    case.speaks_for(
        0.97 if finding.onset_step - step <= 1 else 0.5,
        f"{name} held non-finite values at step {step}, and it began at step {finding.onset_step}",
    )
    return case.weight()
