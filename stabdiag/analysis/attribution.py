"""Why: the candidate causes of a finding, weighed against each other and against the unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from stabdiag.analysis.catalogue import CAUSES, FIXES, Weight
from stabdiag.core.diagnosis import FirstMover, FixAdvice
from stabdiag.core.finding import CauseRanked, Finding
from stabdiag.core.run import Run

UNKNOWN = 0.15
"""The support of a cause that the catalogue does not have. It keeps one weak candidate from looking
certain for want of a rival."""

SHARPNESS = 1.5
"""Belief is proportional to support to this power, the unknown's included. Without it the confidences are
too low: of 20 recorded faults of the zoo (benchmarks/reliability.py) the first cause was right in 90 %, and
said with 69 %. The likelihood of the true causes is flat between 1.5 and 2.5."""

MOST_FIXES = 4

EXPECTED = 0.3
"""Strength of the argument that what moved first is what a cause moves first."""

UNTIMELY = 0.5
"""Strength of the argument that it moved too early or too late for a cause."""


def attribute(run: Run, finding: Finding, candidates: Sequence[str]) -> Finding:
    """`finding` with its causes ranked, and the ids of their fixes in that order."""
    return _ranked(
        finding, [(id, w) for id in candidates if id in CAUSES and (w := _weigh(run, finding, id))]
    )


def _ranked(finding: Finding, weighed: Sequence[tuple[str, Weight]]) -> Finding:
    total = sum(weight.support**SHARPNESS for _, weight in weighed) + UNKNOWN**SHARPNESS
    ranked = tuple(
        CauseRanked(id, weight.support**SHARPNESS / total, weight.because)
        for id, weight in sorted(weighed, key=lambda pair: -pair[1].support)
    )
    fixes = dict.fromkeys(fix for cause in ranked for fix in CAUSES[cause.id].fixes)
    return replace(finding, causes=ranked, fixes=tuple(fixes))


def reconsider(finding: Finding, mover: FirstMover | None) -> Finding:
    """`finding` with its causes weighed once more, by what moved first and how long before the loss."""
    if mover is None or not finding.causes:
        return finding
    unknown = max(1.0 - sum(cause.confidence for cause in finding.causes), 1e-9)
    supports = [UNKNOWN * (cause.confidence / unknown) ** (1 / SHARPNESS) for cause in finding.causes]
    weighed = zip(finding.causes, supports, strict=True)
    return _ranked(finding, [(cause.id, _by_the_mover(cause, had, mover)) for cause, had in weighed])


def _by_the_mover(cause: CauseRanked, support: float, mover: FirstMover) -> Weight:
    declared = CAUSES[cause.id]
    expected = any(fnmatchcase(mover.series, pattern) for pattern in declared.moves_first)
    least, most = declared.lead
    # The mover was recorded now and then: it may have moved earlier, back to its last value inside.
    earliest = None if mover.lead is None else mover.lead + mover.step - mover.within - 1
    timely = mover.lead is None or earliest is None or (mover.lead <= most and earliest >= least)
    if expected and timely:
        told = f"{cause.because}; {mover.series} of {mover.site} moved first"
        return Weight(1.0 - (1.0 - min(support, 1.0)) * (1.0 - EXPECTED), told)
    if not timely:
        told = f"{cause.because}; but {mover.series} had moved {mover.lead} steps before the loss"
        return Weight(support * (1.0 - UNTIMELY), told)
    return Weight(support, cause.because)


def _weigh(run: Run, finding: Finding, id: str) -> Weight | None:
    if "impossible" in finding.facts and not CAUSES[id].of_the_task:
        return None
    try:
        weight = CAUSES[id].weigh(run, finding)
    except Exception as error:
        # The finding stands whatever becomes of its explanation, and the failure shows in the report.
        return Weight(1e-6, f"could not be weighed: {type(error).__name__}: {error}")
    return weight if weight and weight.support > 0 else None


def leading(finding: Finding) -> tuple[CauseRanked, ...]:
    """The causes that are likelier than the unknown, which has what they leave of 1, and not far behind
    the first."""
    unknown = 1.0 - sum(cause.confidence for cause in finding.causes)
    bar = max(unknown, max((cause.confidence for cause in finding.causes), default=0.0) / 5)
    return tuple(cause for cause in finding.causes if cause.confidence >= bar)


def advise(run: Run, finding: Finding) -> tuple[FixAdvice, ...]:
    """The fixes of the leading causes (of the first, where none leads) that can help in this run."""
    causes = leading(finding) or finding.causes[:1]
    ids = dict.fromkeys(fix for cause in causes for fix in CAUSES[cause.id].fixes if fix in FIXES)
    advice = (_propose(run, finding, id) for id in ids)
    return tuple(fix for fix in advice if fix)[:MOST_FIXES]


def _propose(run: Run, finding: Finding, id: str) -> FixAdvice | None:
    try:
        change = FIXES[id].propose(run, finding)
    except Exception as error:
        return FixAdvice(id, FIXES[id].title, f"could not be worded: {type(error).__name__}: {error}", "")
    return FixAdvice(id, FIXES[id].title, change.text, change.code, change.runtime) if change else None
