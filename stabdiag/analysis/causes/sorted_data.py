from __future__ import annotations

from stabdiag.analysis.case import Case, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause("sorted-data", title="The data come in an order", fixes=("reshuffle-data", "larger-batch"))
def sorted_data(run: Run, finding: Finding) -> Weight | None:
    """Samples come sorted by their label, source or time: a batch holds one kind, and the next one another.

    The model learns each kind and forgets the one before; batch normalization measures one kind at a time.
    A folder read in its order, or a shuffle that was left out, does it.

    Reference: Bengio 2012 (Practical recommendations for gradient-based training, arXiv 1206.5533), 3.
    """
    mixed = finding.facts.get("mixed")
    if mixed is None:
        return None
    case = Case()
    case.speaks_for(
        0.95 * ramp(1 - mixed, 0.3, 0.6),
        f"the targets of a batch vary by {mixed:.0%} of what all vary by; of a random draw it is 100%",
    )
    return case.weight()
