from __future__ import annotations

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "distribution-shift",
    title="The data come from somewhere else",
    fixes=("ramp-mixture", "add-warmup", "lower-beta2"),
)
def distribution_shift(run: Run, finding: Finding) -> Weight | None:
    """A new source, another mixture, longer sequences, another augmentation: from one step to the next.

    The loss steps up and stays, while learning rate, updates and attention were calm before. Statistics of
    the inputs that move at the same step prove it; of token ids there are none.

    Reference: Zeng et al., GLM-130B, https://arxiv.org/abs/2210.02414
    """
    if finding.signature != "distribution-shift-or-resume":
        return None
    case, facts = Case(), finding.facts
    if "before" in facts:
        stepped = f"the loss stepped from {figure(facts['before'])} to {figure(facts['after'])}"
        case.speaks_for(0.5, f"{stepped} without a warning")
    shift = facts.get("input_shift", 0.0)
    case.speaks_for(
        0.8 * ramp(shift, 5, 12), f"a statistic of the inputs moved by {figure(shift)} deviations with it"
    )
    worse = facts.get("evaluation_rise", 0.0)
    case.speaks_for(0.6 * ramp(worse, 0.05, 0.3), "evaluations on the old data got worse at once")
    return case.weight()
