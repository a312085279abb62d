from __future__ import annotations

from stabdiag.analysis.case import Case, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause("slow-rank", title="One process is slower than the others", fixes=("reshuffle-data",))
def slow_rank(run: Run, finding: Finding) -> Weight | None:
    """A machine that is hot or shared, a slow disk or link, or a share of the data with more work in it.

    All wait in the first exchange of a step, so the slow one is told by what it does before that. A
    process that is slow now and then has uneven data rather.

    Reference: Jiang et al., MegaScale, https://arxiv.org/abs/2402.15627
    """
    case = Case()
    if finding.signature == "rank-straggler":
        share, slowest = finding.facts["waste"], finding.facts["slowest"]
        case.speaks_for(
            0.9 * ramp(share, 0.03, 0.2),
            f"the others wait {share:.0%} of each step, for the same in {slowest:.0%}",
        )
    elif finding.signature == "training-stall" and run.info.world_size > 1:
        waits = finding.facts.get("phase") in (2.0, 3.0)
        case.speaks_for(0.4 if waits else 0.15, f"{run.info.world_size} processes wait for one another")
    return case.weight()
