"""Folding: which findings are one incident, and which of them is its root."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stabdiag.analysis.attribution import advise, leading
from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.core.diagnosis import Incident
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

Precedence = tuple[int, float, int, str]

BACKWARD = ("grad", "output_grad", "update")
"""Kinds in which a fault travels from the loss to the input, so that the later layer is upstream."""


def fold(run: Run, findings: Sequence[Finding]) -> tuple[tuple[Finding, ...], tuple[Incident, ...]]:
    """The findings in rank order, and the incidents that index them, both most important first.

    B belongs under A where A's signature explains B's, through others if need be, and A began no
    later than B, give or take what the recording interval cannot resolve. Of several possible roots
    the earliest is taken, then the most upstream, then the most severe.
    """
    precedence = [_precedence(run, finding) for finding in findings]
    root = _roots(findings, precedence, slack(run))
    groups: dict[int, list[int]] = {}
    for index in sorted(range(len(findings)), key=lambda i: precedence[i]):
        groups.setdefault(root[index], []).append(index)

    def importance(at: int) -> tuple[int, Precedence]:
        return (-max(findings[i].severity for i in groups[at]), precedence[at])

    order: list[int] = []
    incidents = []
    for at in sorted(groups, key=importance):
        members = [at, *(i for i in groups[at] if i != at)]
        numbers = tuple(range(len(order), len(order) + len(members)))
        order += members
        incidents.append(_incident(run, [findings[i] for i in members], numbers))
    return tuple(findings[i] for i in order), tuple(incidents)


def _incident(run: Run, members: Sequence[Finding], numbers: tuple[int, ...]) -> Incident:
    """`members` begin with the root."""
    root = members[0]
    causes = leading(root)
    return Incident(
        severity=max(finding.severity for finding in members),
        root=numbers[0],
        findings=numbers,
        onset_step=min(finding.onset_step for finding in members),
        cause=causes[0] if causes else None,
        fixes=advise(run, root),
    )


def slack(run: Run) -> int:
    """Steps by which two onsets may seem swapped: twice the recording interval, at least 2."""
    intervals = [float(np.median(np.diff(data.steps))) for data in run.kinds.values() if len(data.steps) > 1]
    return max(2, round(2 * max(intervals, default=1.0)))


def _precedence(run: Run, finding: Finding) -> Precedence:
    """Sorts the likeliest root first."""
    return (finding.onset_step, _depth(run, finding), -finding.severity, finding.signature)


def _depth(run: Run, finding: Finding) -> float:
    """Place of the first site along the way that the fault travels, small upstream.

    Findings that have no place in the model (the loss, the learning rate) come last: they see a
    consequence.
    """
    kinds = [e.series.partition(".")[0] for e in finding.evidence] or list(run.kinds)
    for kind in kinds:
        for site in run.sites(kind):
            if finding.sites and site.name == finding.sites[0] and site.order >= 0 and kind != "run":
                # Backward places follow all forward ones: the backward pass comes after the loss.
                return 2e9 - site.order if kind in BACKWARD else float(site.order)
    return float("inf")


def _roots(findings: Sequence[Finding], precedence: Sequence[Precedence], late: int) -> list[int]:
    """For each finding the index of its root, itself where nothing explains it."""
    explained = {finding.signature: _explained_by(finding.signature) for finding in findings}

    def explains(a: int, b: int) -> bool:
        first, second = findings[a], findings[b]
        if a == b or second.signature not in explained[first.signature]:
            return False
        # A symptom without a place, such as a plateau, lasts long and begins vaguely.
        vague = (second.last_step - second.onset_step) // 10 if second.sites == ("run",) else 0
        if first.onset_step > second.onset_step + max(late, vague):
            return False
        mutual = first.signature in explained[second.signature]
        return not mutual or precedence[a] < precedence[b]

    count = len(findings)
    parents = [[a for a in range(count) if explains(a, b)] for b in range(count)]
    roots: dict[int, set[int]] = {}

    # `explains` is a strict order (signatures that explain each other are ordered by precedence), so
    # the walk upwards ends.
    def climb(index: int) -> set[int]:
        if index not in roots:
            roots[index] = set().union(*(climb(parent) for parent in parents[index])) or {index}
        return roots[index]

    return [min(climb(index), key=lambda at: precedence[at]) for index in range(count)]


def _explained_by(signature: str) -> frozenset[str]:
    """All signatures that follow from `signature`, directly or through others."""
    reached: set[str] = set()
    ahead = [signature]
    while ahead:
        name = ahead.pop()
        follows = SIGNATURES[name].explains if name in SIGNATURES else ()
        ahead += [other for other in follows if other not in reached]
        reached.update(follows)
    return frozenset(reached - {signature})
