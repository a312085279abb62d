from __future__ import annotations

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "weights-overwritten",
    title="Something else than the optimizer writes to the weights",
    fixes=("stop-overwriting", "rollback"),
    moves_first=("weight.*",),
)
def weights_overwritten(run: Run, finding: Finding) -> Weight | None:
    """Weights move by far more than the steps of their optimizer add up to.

    A rescaling after the step, an average or a projection that is written back, a second loop that updates
    them by hand, or a function that works in place on what it was given. No learning rate and no decay cures
    it. What an optimizer does to them within its step, weight decay included, is counted as its own.

    Reference: PyTorch, Autograd mechanics, In-place correctness checks,
    https://docs.pytorch.org/docs/stable/notes/autograd.html
    """
    growth, written = finding.facts.get("unaided"), finding.facts.get("written")
    case = Case()
    if written is not None:
        case.speaks_for(
            0.97,
            f"autograd counts writes in place to {figure(written)} parameters between two optimizer steps",
        )
    elif growth is not None:
        case.speaks_for(
            0.95 * ramp(growth, 1.1, 2.0),
            f"{finding.sites[0]} grew {figure(growth)}-fold beyond all that the recorded updates account for",
        )
    else:
        return None
    return case.weight()
