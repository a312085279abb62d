from __future__ import annotations

import math

from stabdiag.analysis.anatomy import learns_normally
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import BINARY
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "wrong-targets",
    title="The targets do not belong to the inputs",
    fixes=("fix-targets", "fix-loss"),
    of_the_task=True,
)
def wrong_targets(run: Run, finding: Finding) -> Weight | None:
    """Inputs and targets are paired wrongly, so that nothing but the frequency of labels can be learned.

    Usual reasons: inputs and labels shuffled apart, an off-by-one in next-token targets, a mask that
    is inverted. The sign is a loss that stays at what a constant answer costs while all internals are
    healthy: gradients arrive and weights move. In the look-alikes something inside is not healthy.
    Or the reverse: the targets are among the inputs, by a missing shift or mask, and are read off them: the
    training loss falls far below what a constant answer costs, and evaluations without them never do.
    To prove the first: a fresh model cannot overfit one batch of 8 either.

    Reference: Karpathy, A Recipe for Training Neural Networks, 2019
    """
    case, function = Case(), run.fact("loss", "function")
    if "impossible" in finding.facts and function == BINARY:
        case.speaks_for(
            0.9, f"the loss is negative, which a {function} is for targets outside of 0 to 1 alone"
        )
        return case.weight()
    if finding.signature == "overfitting":
        return _leak(finding)
    if finding.signature not in ("loss-plateau", "context-blind-plateau"):
        return None
    ratio = learns_normally(run, finding.onset_step, finding.last_step)
    if ratio is not None:
        case.speaks_for(
            0.45,
            f"the loss stood still while the weights moved as they should (median ratio {figure(ratio)})",
        )
    else:
        case.speaks_against(0.4, "it is not known that the weights moved as they should")
    level, classes = history(run, "run.loss").at(finding.last_step), run.fact("loss", "classes")
    constant = finding.facts.get("constant") if finding.signature == "context-blind-plateau" else None
    if constant is not None:
        gap = abs(finding.facts["gap"])
        case.speaks_for(
            0.7 * ramp(gap, 0.1, 0.02),
            f"the loss is within {gap:.1%} of what the best answer costs that ignores the input "
            f"({figure(constant)})",
        )
    elif level is not None and isinstance(classes, int) and classes > 1:
        guess = math.log(classes)
        case.speaks_for(
            0.4 * ramp(level / guess, 0.7, 0.95),
            f"the loss of {figure(level)} is near that of an answer that ignores the input "
            f"({figure(guess)} if the {classes} classes are equally frequent)",
        )
        case.speaks_against(0.6 * ramp(level / guess, 0.6, 0.3), "the loss is far below chance")
    norm = history(run, "run.grad_norm").usual(finding.last_step)
    if norm is not None and norm < 1e-6:
        case.speaks_against(0.7, f"hardly any gradient arrives (norm {figure(norm)})")
    return case.weight()


def _leak(finding: Finding) -> Weight | None:
    """None where evaluations were better than a constant answer: then inputs tell something of targets."""
    constant, case = finding.facts.get("constant"), Case()
    if constant is None or not finding.severity:  # a note may as well be of what was learned by heart
        return None
    trained, best = finding.facts["train_end"], finding.facts["best"]
    case.speaks_for(
        0.85 * ramp(trained / constant, 0.3, 0.1),
        f"training costs {figure(trained)} and no evaluation less than {figure(best)}, where an answer that "
        f"ignores the input costs {figure(constant)}: the targets may be among the inputs of training (a "
        "missing shift or mask)",
    )
    return case.weight()
