from __future__ import annotations

from stabdiag.analysis.batches import lone_jump, misfit, nonfinite_input, other_uses, outlier
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.analysis.step_size import HEALTHY_RATIO, ratio_near
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "corrupt-batch",
    title="A batch of damaged data",
    fixes=("skip-batch", "clean-data", "rollback"),
    moves_first=("batch.*",),
    lead=(0, 1),
)
def corrupt_batch(run: Run, finding: Finding) -> Weight | None:
    """One batch holds garbage: values out of any range, permuted labels, a broken file.

    The loss and the gradient norm jump in the same step, without warning, and the loss of the next
    step, on other data, is normal or nearly so. Values 30 times the usual range are damage rather than
    variety, and so are targets that the prediction misses by 30 times what is usual: a missing value that
    was read as a number. A learning rate that is too high warns: updates grow before the loss does. The
    proof is to replay the batch from another checkpoint: a corrupt one is high there too.

    Reference: Chowdhery et al., PaLM, https://arxiv.org/abs/2204.02311, section 5.1
    """
    case, onset = Case(), finding.onset_step
    batch, bad = outlier(run, onset), nonfinite_input(run, onset)
    if batch is not None:
        case.speaks_for(
            0.9 * ramp(batch.multiple, 10, 50),
            f"{batch.input} of step {batch.step} held values up to {figure(batch.reach)}, "
            f"{figure(batch.multiple)} times the usual range",
        )
        case.speaks_against(
            0.5 * ramp(batch.multiple, 3, 1.3),
            f"the range of {batch.input} at step {batch.step} was ordinary",
        )
    elif finding.severity and not bad:
        _by_the_loss(case, run, onset)
    missed = misfit(run, finding.peak_step) if finding.signature in ("bad-batch", "loss-spike") else None
    if missed is not None:
        multiple, what = missed
        case.speaks_for(
            0.85 * ramp(multiple, 10, 50), f"{what} was off by {figure(multiple)} times the usual error"
        )
    if bad is not None and bad[1] >= onset - 1:
        case.speaks_for(0.5, f"{bad[0]} of step {bad[1]} held non-finite values")
    apart = finding.facts.get("outlying")
    if finding.severity and apart is not None:
        case.speaks_for(
            0.6 * ramp(apart, 12, 4),
            f"it is bad as a whole: its worst sample lies {figure(apart)} deviations from the others",
        )
    uses = other_uses(run, onset)
    if uses and (again := history(run, "run.loss").jump(uses[0])) is not None:
        case.speaks_for(
            0.5 * ramp(again, 1.5, 3),
            f"the same batch raised the loss {figure(again)}-fold at step {uses[0]}",
        )
        case.speaks_against(
            0.6 * ramp(again, 1.3, 1.05), f"the same batch was learned without trouble at step {uses[0]}"
        )
    near = ratio_near(run, onset - 1)
    if near is not None:
        case.speaks_against(
            0.5 * ramp(near[1], HEALTHY_RATIO, 0.3), f"the updates were long before (ratio {figure(near[1])})"
        )
    return case.weight()


def _by_the_loss(case: Case, run: Run, onset: int) -> None:
    """Token batches have no range; a jump of loss and gradient in one and the same step has to do."""
    jump = lone_jump(run, onset)
    if jump is None:
        return
    case.speaks_for(
        0.5 * ramp(jump.rise, 1.15, 2) * ramp(jump.pull, 1.5, 10),
        f"loss and gradient norm jumped in the same step, {figure(jump.rise)}-fold and "
        f"{figure(jump.pull)}-fold",
    )
    if jump.guess is not None:
        case.speaks_for(
            0.6 * ramp(jump.peak / jump.guess, 0.9, 1.2),
            f"its loss of {figure(jump.peak)} is beyond that of a guess ({figure(jump.guess)})",
        )
    if not jump.returned:
        case.speaks_against(0.6, "the loss of the next batch was high as well")
