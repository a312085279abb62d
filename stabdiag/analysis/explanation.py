"""Which finding explains which: the graph of `explains`, held against time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.guessing import constant_answer
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.analysis.precedence import precedence
from stabdiag.analysis.resolution import slack
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.run import MissingSeries, Run

SOON = 50
"""Steps within which a consequence follows what brought it about, where nothing says how long it lasts."""

FIRST = 2
"""A fault that is there by this step has no healthy state before it to which the run could return."""


UNEXPLAINED = {"impossible", "by_construction"}
"""Facts of a contradiction in what is computed, and of what is written so: no course of the training brings
either about."""


class Explanation:
    """Who explains whom among `findings`.

    B follows from A where A's signature explains B's, through others if need be, A began no later than
    B, give or take what the recording cannot resolve, and the run was not well again in between.
    """

    def __init__(self, run: Run, findings: Sequence[Finding]) -> None:
        self._run = run
        self._findings = findings
        self.precedence = [precedence(run, finding) for finding in findings]
        self._follows = {finding.signature: _follows(finding.signature) for finding in findings}

    def roots(self) -> list[int]:
        """For each finding the index of its root, itself where nothing explains it: of several the
        earliest, then the most upstream, then the most severe."""
        count = len(self._findings)
        pairs = [[a for a in range(count) if a != b and self._explains(a, b)] for b in range(count)]
        parents = [self._graver(above) for above in pairs]
        known: dict[int, set[int]] = {}

        # No finding comes before itself: what explains each other is ordered by precedence, and all
        # else by the graph. So the walk upwards ends.
        def climb(index: int) -> set[int]:
            if index not in known:
                known[index] = set().union(*(climb(parent) for parent in parents[index])) or {index}
            return known[index]

        roots = [min(climb(index), key=lambda at: self.precedence[at]) for index in range(count)]
        within = self._within_a_bad_loss(roots)

        def uppermost(root: int) -> int:
            return uppermost(within[root]) if root in within else root

        return [uppermost(root) for root in roots]

    def _graver(self, parents: list[int]) -> list[int]:
        """`parents` without mere notes, where there are others."""
        return [a for a in parents if self._findings[a].severity > Severity.info] or parents

    def _within_a_bad_loss(self, roots: Sequence[int]) -> dict[int, int]:
        """Roots that began while the loss was rising already, though they could have brought that about:
        no second fault, but what the first did before it was large enough to be seen."""
        above: dict[int, int] = {}
        in_order = sorted(range(len(roots)), key=lambda at: self.precedence[at])
        for a in in_order:
            for b in in_order:
                # Only roots that come later are put under one: no chain of them can come back to itself.
                new = roots[b] == b and b not in above and self.precedence[roots[a]] < self.precedence[b]
                if new and self._rises_into(self._findings[a], self._findings[b]):
                    above[b] = roots[a]
        return above

    def _rises_into(self, loss: Finding, late: Finding) -> bool:
        curve = self._curve
        if curve is None or loss.sites != ("run",) or loss.signature not in self._follows[late.signature]:
            return False
        if loss.severity < min(late.severity, Severity.warning):
            return False
        before, then = np.searchsorted(curve.steps, [loss.onset_step - 1, late.onset_step])
        higher = curve.level[min(then, len(curve.level) - 1)] - curve.level[before] > curve.margin
        return bool(loss.onset_step < late.onset_step <= loss.last_step and higher)

    def _explains(self, a: int, b: int) -> bool:
        first, second = self._findings[a], self._findings[b]
        if second.signature not in self._follows[first.signature]:
            return False
        if UNEXPLAINED & second.facts.keys():
            return False
        if "by_construction" in first.facts and first.severity is Severity.info:
            return False  # it did no harm, and it is no more at any other step
        mutual = first.signature in self._follows[second.signature]
        if mutual and not self.precedence[a] < self.precedence[b]:
            return False
        blur = slack(self._run, first, second)
        if first.severity is Severity.info and second.severity > Severity.info:
            # What did no harm by itself has to come before what it is to have brought about: clearly so, if
            # only through others.
            direct = second.signature in SIGNATURES[first.signature].explains
            ahead = second.onset_step - first.onset_step
            if ahead == 0 and self._downstream(a, b):
                return False
            return ahead >= (0 if direct else blur) and self._lasted(first, second, blur)
        return not self._too_late(first, second, blur) and self._lasted(first, second, blur)

    def _downstream(self, a: int, b: int) -> bool:
        """Whether both have a place, and that of `a` comes later in the flow."""
        first, second = self.precedence[a][1], self.precedence[b][1]
        return second < first < np.inf

    def _too_late(self, first: Finding, second: Finding, blur: int) -> bool:
        """A symptom without a place, such as a plateau, lasts long and begins vaguely: before its worst
        step anything may have brought it about."""
        if second.sites == ("run",):
            tenth = (second.last_step - second.onset_step) // 10
            rising = min(second.peak_step - second.onset_step, SOON + tenth)
            blur = max(blur, rising, min(tenth, SOON))
        return first.onset_step > second.onset_step + blur

    def _lasted(self, first: Finding, second: Finding, blur: int) -> bool:
        """Whether `first` was still at work when `second` began. A mere note has to come just before."""
        soon = max(SOON, blur)
        if first.severity is Severity.info and second.severity > Severity.info:
            return second.onset_step - first.onset_step <= soon
        if first.onset_step <= FIRST:
            soon = max(soon, 4 * SOON, self._run.steps // 10)
        soon = max(soon, first.last_step - first.onset_step)
        return second.onset_step - first.last_step <= soon or not self._well_between(first, second)

    def _well_between(self, first: Finding, second: Finding) -> bool:
        """Whether the loss came to below what it was before `first`; where that was there from the start, to
        below what an answer costs that ignores the input. Where no loss tells, time heals."""
        curve = self._curve
        if curve is None:
            return second.onset_step - first.last_step > second.onset_step // 4
        before, after, onset = np.searchsorted(
            curve.steps, [first.onset_step, first.last_step + 1, second.onset_step]
        )
        best = float(np.nanmin(curve.level[:before], initial=curve.start))
        if first.onset_step <= FIRST:
            best = float(np.fmin(best, constant_answer(self._run)[0]))
        return bool(np.nanmin(curve.level[after:onset], initial=np.inf) < best - curve.margin)

    @cached_property
    def _curve(self) -> LossCurve | None:
        try:
            return loss_curve(self._run)
        except (NotEvaluable, MissingSeries):
            return None


def _follows(signature: str) -> frozenset[str]:
    """All signatures that follow from `signature`, directly or through others."""
    reached: set[str] = set()
    ahead = [signature]
    while ahead:
        name = ahead.pop()
        next_ones = SIGNATURES[name].explains if name in SIGNATURES else ()
        ahead += [other for other in next_ones if other not in reached]
        reached.update(next_ones)
    return frozenset(reached - {signature})
