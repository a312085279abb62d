from __future__ import annotations

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import SIGNATURES, Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "repeated-data",
    title="The same data come again and again",
    fixes=("reshuffle-data", "more-data", "early-stopping"),
)
def repeated_data(run: Run, finding: Finding) -> Weight | None:
    """A sampler that began anew on resume, workers with one seed, a set that is too small for the run.

    Equal fingerprints tell batches that came before. Repeats long before all others had their turn are a
    fault of the pipeline; whole passes in the same order are a choice, and cost nearly nothing up to four.

    Reference: Muennighoff et al., Scaling Data-Constrained Language Models, https://arxiv.org/abs/2305.16264
    """
    facts = finding.facts
    if finding.signature != "data-repetition":
        facts = _repetition(run)
    if "repeated" not in facts:
        return None
    case, share, passes = Case(), facts["repeated"], facts["passes"]
    case.speaks_for(
        0.7 * ramp(passes, 2, 12) * ramp(share, 0.05, 0.5),
        f"{facts['distinct']:.0f} batches came {figure(passes)} times each",
    )
    case.speaks_for(
        0.85 * ramp(facts["early"], 0.05, 0.2),
        f"{facts['early']:.0%} of the steps repeat a batch before half of the others had their turn",
    )
    if finding.signature == "distribution-shift-or-resume":
        late = facts["first_repeat"] - finding.onset_step
        case.speaks_against(0.8 * ramp(abs(late) + 1, 5, 50), "repetition began at another step")
    return case.weight()


def _repetition(run: Run) -> dict[str, float]:
    """The facts of the signature, with no bound on how little repetition counts."""
    try:
        found = list(SIGNATURES["data-repetition"](run))
    except Exception:  # not evaluable, or the series are absent
        return {}
    return dict(found[0].facts) if found else {}
