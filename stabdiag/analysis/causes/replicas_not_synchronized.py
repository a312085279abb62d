from __future__ import annotations

from stabdiag.analysis.case import Case
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "replicas-not-synchronized",
    title="Ranks do not make the same update",
    fixes=("synchronize-replicas", "rollback"),
)
def replicas_not_synchronized(run: Run, finding: Finding) -> Weight | None:
    """A gradient is not averaged over the ranks, or one rank updates what the others do not.

    A parameter that is used outside the wrapper's forward pass, a step that one rank alone skips, a seed
    of its own at initialisation, an edit on one rank: each leaves copies different for good, and the
    difference grows.

    Reference: PyTorch, DistributedDataParallel, internal design.
    """
    if finding.signature != "rank-desync":
        return None
    case = Case()
    case.speaks_for(0.6, f"the copies part at step {finding.peak_step} and stay so")
    if finding.facts["same_until"] < 0:
        case.speaks_for(0.3, "they were never seen alike")
    skipped = [event for event in run.events_of("skipped-step") if (event.step or 0) <= finding.peak_step]
    if len({event.rank for event in skipped}) == 1:
        case.speaks_for(0.6, f"rank {skipped[0].rank} alone skipped step {skipped[0].step}")
    return case.weight()
