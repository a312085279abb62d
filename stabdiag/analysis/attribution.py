"""Why: the candidate causes of a finding, weighed against each other and against the unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stabdiag.analysis.catalogue import CAUSES, FIXES, Weight
from stabdiag.core.diagnosis import FixAdvice
from stabdiag.core.finding import CauseRanked, Finding
from stabdiag.core.run import Run

UNKNOWN = 0.15
"""The support of a cause that the catalogue does not have. It keeps one weak candidate from looking
certain for want of a rival."""

MOST_FIXES = 4


def attribute(run: Run, finding: Finding, candidates: Sequence[str]) -> Finding:
    """`finding` with its causes ranked, and the ids of their fixes in that order."""
    weighed = [(id, weight) for id in candidates if id in CAUSES and (weight := _weigh(run, finding, id))]
    weighed.sort(key=lambda pair: -pair[1].support)
    total = sum(weight.support for _, weight in weighed) + UNKNOWN
    ranked = tuple(CauseRanked(id, weight.support / total, weight.because) for id, weight in weighed)
    fixes = dict.fromkeys(fix for cause in ranked for fix in CAUSES[cause.id].fixes)
    return replace(finding, causes=ranked, fixes=tuple(fixes))


def _weigh(run: Run, finding: Finding, id: str) -> Weight | None:
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
    bar = max(unknown, max((cause.confidence for cause in finding.causes), default=0.0) / 3)
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
