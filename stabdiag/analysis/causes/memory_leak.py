from __future__ import annotations

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import SIGNATURES, Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause("memory-leak", title="Something is kept from each step", fixes=("release-memory",))
def memory_leak(run: Run, finding: Finding) -> Weight | None:
    """A loss that is summed up with its graph, outputs in a list, hooks that append, a cache without an end.

    Memory rises by the same amount at each step. A caching allocator and a data set that is read for the
    first time rise as well, and stop.

    Reference: https://pytorch.org/docs/stable/notes/faq.html
    """
    case = Case()
    if finding.signature == "memory-growth":
        facts = finding.facts
        case.speaks_for(
            0.6 + 0.3 * ramp(facts["grown"] / max(facts["start"], 1.0), 0.1, 1.0),
            f"memory rose by {figure(facts['per_step'])} MiB a step, {figure(facts['grown'])} MiB in all",
        )
    elif finding.signature == "training-stall" and _grows(run):
        case.speaks_for(0.5, "memory rose step by step before it")
    return case.weight()


def _grows(run: Run) -> bool:
    try:
        return any(True for _ in SIGNATURES["memory-growth"](run))
    except Exception:  # not evaluable, or the series are absent
        return False
