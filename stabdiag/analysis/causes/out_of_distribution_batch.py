from __future__ import annotations

from stabdiag.analysis.batches import lone_jump, outlier
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "out-of-distribution-batch",
    title="A batch unlike the others",
    fixes=("skip-batch", "shrink-embedding-gradient", "clip-gradients", "adaptive-clipping", "clean-data"),
    moves_first=("batch.*",),
    lead=(0, 1),
)
def out_of_distribution_batch(run: Run, finding: Finding) -> Weight | None:
    """One batch is valid but rare: another language, a long tail, repeated text, an unusual scale.

    The loss jumps for one step while the gradient norm rises less than with damaged labels, and the
    values of the input stay within a few times the usual. A batch that every epoch holds, and that
    spikes only in one state of the model, is not to blame alone.

    Reference: Chowdhery et al., PaLM, https://arxiv.org/abs/2204.02311, section 5.1
    """
    case, onset = Case(), finding.onset_step
    batch = outlier(run, onset)
    if batch is not None:
        case.speaks_for(
            0.6 * ramp(batch.multiple, 1.5, 4),
            f"{batch.input} of step {batch.step} reached {figure(batch.multiple)} times its usual range",
        )
        case.speaks_against(0.8 * ramp(batch.multiple, 10, 50), "so much is damage rather than variety")
        if batch.multiple < 1.3:
            case.speaks_against(0.4, f"the range of {batch.input} was ordinary")
    if finding.signature == "embedding-gradient-spike" and finding.facts.get("growth", 0) > 1:
        case.speaks_for(
            0.5,
            f"one table took up {finding.facts['share']:.0%} of the gradient: a burst of few tokens does so",
        )
    jump = lone_jump(run, onset)
    if jump is not None:
        case.speaks_for(
            0.35 * ramp(jump.rise, 1.1, 1.5) * ramp(jump.pull, 30, 3),
            f"the loss rose {figure(jump.rise)}-fold with a gradient norm {figure(jump.pull)} times usual",
        )
        if jump.guess is not None:
            case.speaks_against(
                0.7 * ramp(jump.peak / jump.guess, 0.9, 1.2), "a loss above that of a guess is damage rather"
            )
        if not jump.returned:
            case.speaks_against(0.6, "the loss of the next batch was high as well")
    return case.weight()
