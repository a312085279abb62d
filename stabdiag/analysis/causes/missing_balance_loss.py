from __future__ import annotations

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "missing-balance-loss",
    title="Nothing keeps the experts equally used",
    fixes=("balance-router", "lower-learning-rate"),
)
def missing_balance_loss(run: Run, finding: Finding) -> Weight | None:
    """A router that prefers an expert trains that expert, which makes it prefer it more.

    It happens within the first hundred steps, in all layers alike, while loss and gradients look healthy. A
    collapse that follows a jump of the loss has another cause, and so has one that is there at the first
    step.

    Reference: Shazeer et al., Outrageously Large Neural Networks, https://arxiv.org/abs/1701.06538; Fedus
    et al., Switch Transformers, https://arxiv.org/abs/2101.03961
    """
    if finding.signature != "moe-router-collapse":
        return None
    case, facts = Case(), finding.facts
    case.speaks_for(
        0.5 + 0.4 * ramp(facts.get("load_entropy", 1.0), 0.8, 0.3),
        f"the loads have {figure(facts.get('load_entropy', 1.0))} of their largest entropy, and "
        f"{100 * facts.get('idle', 0.0):.0f} % of the experts are idle",
    )
    jump = history(run, "run.loss").jump(finding.onset_step)
    if jump is not None:
        case.speaks_against(0.5 * ramp(jump, 1.5, 5), f"the loss jumped {figure(jump)}-fold as it began")
    return case.weight()
