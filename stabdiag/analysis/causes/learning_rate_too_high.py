from __future__ import annotations

from stabdiag.analysis.batches import outlier
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.analysis.step_size import HEALTHY_RATIO, USUAL_RATIO, ratio_near, schedule, second_beta
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "learning-rate-too-high",
    title="The learning rate is too high",
    fixes=("lower-learning-rate", "rollback", "add-warmup", "clip-gradients"),
    moves_first=("update.*", "optimizer.step", "weight.norm"),
)
def learning_rate_too_high(run: Run, finding: Finding) -> Weight | None:
    """The step is longer than the curvature of the loss allows: each update overshoots.

    The update ratio of the weight matrices (norm of the change over norm of the weight) tells it, read
    before or at the onset: it falls by itself once the weights have blown up. Healthy runs stay below
    0.03 after the first steps; runs that failed by their learning rate reached 0.15 and more. Its
    look-alikes: a missing warm-up (only the first hundred steps are too long), a corrupt batch (one
    step, and the loss of the next is normal), a bad initialization (wrong before the first update).

    Reference: Wortsman et al., Small-scale proxies for large-scale Transformer training
    instabilities, https://arxiv.org/abs/2309.14322; Cohen et al., Gradient Descent on Neural Networks
    Typically Occurs at the Edge of Stability, https://arxiv.org/abs/2103.00065
    """
    case, plan = Case(), schedule(run)
    _by_the_updates(case, run, finding)
    rate = plan.at(finding.onset_step)
    if rate is not None:
        adaptive = second_beta(run) is not None
        case.speaks_for(
            0.5 * ramp(rate, *((3e-3, 1e-1) if adaptive else (0.3, 10.0))),
            f"the learning rate was {figure(rate)}, high for {'Adam' if adaptive else 'this optimizer'}",
        )
        if plan.rising(finding.onset_step):
            case.speaks_for(0.3, f"the learning rate was still rising at step {finding.onset_step}")
    abrupt = plan.jump(finding.onset_step - 10, finding.onset_step)
    if abrupt is not None and abrupt[2] > abrupt[1]:
        case.speaks_against(0.6, f"it had been {figure(abrupt[1])} until step {abrupt[0]}, and jumped")
    growth = _weight_growth(run, finding.onset_step, finding.peak_step)
    case.speaks_for(0.6 * ramp(growth, 3, 30), f"the weights grew to {figure(growth)} times their first norm")
    if finding.signature == "adam-correlated-update":
        update = finding.facts["update_rms"]
        case.speaks_for(
            0.5 * ramp(update, 0.5, 1.0),
            f"gradients that keep their sign make updates of {figure(update)} learning rates",
        )
    if finding.facts.get("sensitivity", 0.0) > 1e4:
        case.speaks_against(0.7, "before the first step the loss was that sensitive already")
    if finding.signature == "weight-norm-drift" and finding.facts["growth"] < 1:
        case.speaks_against(0.6, "a long step does not make weights shrink")
    batch = outlier(run, finding.onset_step)
    if batch is not None:
        case.speaks_against(
            0.7 * ramp(batch.multiple, 5, 50),
            f"the batch of step {batch.step} held values {figure(batch.multiple)} times the usual",
        )
    return case.weight()


def _by_the_updates(case: Case, run: Run, finding: Finding) -> None:
    near = ratio_near(run, finding.onset_step)
    alone = finding.facts.get("others")
    if alone is not None:
        ratio = finding.facts["update_ratio"]
        case.speaks_for(
            0.9 * ramp(ratio, 0.03, 0.2),
            f"a step changed it by {figure(100 * ratio)} %, the other matrices by {figure(100 * alone)} %",
        )
    elif near is not None:
        step, ratio = near
        case.speaks_for(
            0.9 * ramp(ratio, HEALTHY_RATIO, 0.3),
            f"the median update ratio of the weight matrices was {figure(ratio)} at step {step}, where "
            f"{USUAL_RATIO:g} is usual and {HEALTHY_RATIO:g} the most in healthy runs",
        )
        case.speaks_against(
            0.8 * ramp(ratio, HEALTHY_RATIO / 2, USUAL_RATIO / 3),
            f"the updates were small (median ratio {figure(ratio)})",
        )


def _weight_growth(run: Run, onset: int, peak: int) -> float:
    """Largest growth of the first recorded weight's norm up to shortly after the onset."""
    norms = [history(run, "weight.norm", site.name).finite() for site in run.sites("weight")[:1]]
    for norm in norms:
        late = norm.peak(0, max(onset, peak) + 10)
        if len(norm) and late and norm.values[0] > 0:
            return late[1] / float(norm.values[0])
    return 1.0
