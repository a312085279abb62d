"""Folding: which findings are one incident, what moved first in it, and whom to blame."""

from __future__ import annotations

from collections.abc import Sequence

from stabdiag.analysis.attribution import advise, leading, reconsider
from stabdiag.analysis.culprit import culprit
from stabdiag.analysis.explanation import Explanation
from stabdiag.analysis.first_mover import first_mover
from stabdiag.analysis.precedence import Precedence
from stabdiag.core.diagnosis import FirstMover, Incident
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.run import Run

EXAMINED = 5
"""Incidents of which it is found out what moved first: nobody reads on, and it costs a scan of the run."""


def fold(run: Run, findings: Sequence[Finding]) -> tuple[tuple[Finding, ...], tuple[Incident, ...]]:
    """The findings in rank order, and the incidents that index them, both most important first."""
    explanation = Explanation(run, findings)
    precedence, root = explanation.precedence, explanation.roots()
    groups: dict[int, list[int]] = {}
    for index in sorted(range(len(findings)), key=lambda i: precedence[i]):
        groups.setdefault(root[index], []).append(index)

    def importance(at: int) -> tuple[int, Precedence]:
        return (-max(findings[i].severity for i in groups[at]), precedence[at])

    order: list[Finding] = []
    incidents = []
    for rank, at in enumerate(sorted(groups, key=importance)):
        members = [findings[i] for i in (at, *(i for i in groups[at] if i != at))]
        mover = _mover(run, members) if rank < EXAMINED else None
        members[0] = reconsider(members[0], mover)
        incidents.append(_incident(run, members, len(order), mover))
        order += members
    return tuple(order), tuple(incidents)


def _incident(run: Run, members: Sequence[Finding], begin: int, mover: FirstMover | None) -> Incident:
    """`members` begin with the root, and stand from `begin` on in the list of all findings."""
    root = members[0]
    cause = next(iter(leading(root)), None)
    return Incident(
        severity=max(finding.severity for finding in members),
        root=begin,
        findings=tuple(range(begin, begin + len(members))),
        onset_step=min(finding.onset_step for finding in members),
        cause=cause,
        fixes=advise(run, root),
        first_mover=mover,
        culprit=culprit(run, root, cause, mover),
    )


def _mover(run: Run, members: Sequence[Finding]) -> FirstMover | None:
    """A note of no consequence is not looked into."""
    if max(finding.severity for finding in members) is Severity.info:
        return None
    losses = [f.onset_step for f in members if f.evidence and f.evidence[0].series == "run.loss"]
    onset = min(finding.onset_step for finding in members)
    return first_mover(run, onset, members[0].peak_step, min(losses, default=None))
