"""How right the diagnoses of a set of cases were, in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import chi2

from stabdiag.core.finding import Severity
from stabdiag.zoo.outcome import NEAR, Outcome

NOTHING = "(nothing)"
CONTROL = "(healthy)"
LEVEL = 0.95


@dataclass(frozen=True)
class Share:
    """`hits` of `of`."""

    hits: int
    of: int

    @classmethod
    def of_true(cls, values: Iterable[bool]) -> Share:
        known = list(values)
        return cls(sum(known), len(known))

    @property
    def value(self) -> float:
        return self.hits / self.of if self.of else float("nan")


@dataclass(frozen=True)
class Row:
    """One signature: faults whose proper name it is that were found, that were missed, and false alarms of
    it."""

    signature: str
    found: int
    missed: int
    false: int

    @property
    def precision(self) -> float:
        return self.found / (self.found + self.false) if self.found + self.false else float("nan")

    @property
    def recall(self) -> float:
        return self.found / (self.found + self.missed) if self.found + self.missed else float("nan")

    @property
    def f1(self) -> float:
        return 2 * self.found / max(2 * self.found + self.missed + self.false, 1)


@dataclass(frozen=True)
class Score:
    """Of a set of outcomes. Whatever is said of faults concerns those that have to be found."""

    outcomes: Sequence[Outcome]

    @cached_property
    def faults(self) -> list[Outcome]:
        return [o for o in self.outcomes if o.counted]

    @cached_property
    def benign(self) -> list[Outcome]:
        return [o for o in self.outcomes if o.planted and not o.counted]

    @cached_property
    def controls(self) -> list[Outcome]:
        return [o for o in self.outcomes if not o.planted]

    @cached_property
    def found(self) -> list[Outcome]:
        return [o for o in self.faults if o.right]

    @cached_property
    def rows(self) -> list[Row]:
        """Of all signatures that are some fault's proper name, in their order, then of those that were only
        falsely told."""
        found = Counter(proper(o) for o in self.found)
        missed = Counter(proper(o) for o in self.faults if not o.right)
        false = Counter(told.root for o in self.outcomes for told in o.false)
        names = sorted({*found, *missed}) + sorted({*false} - {*found, *missed})
        return [Row(name, found[name], missed[name], false[name]) for name in names]

    @property
    def macro_f1(self) -> float:
        """The mean over the signatures that were planted."""
        planted = [row.f1 for row in self.rows if row.found + row.missed]
        return float(np.mean(planted)) if planted else float("nan")

    @property
    def macro_recall(self) -> float:
        planted = [row.recall for row in self.rows if row.found + row.missed]
        return float(np.mean(planted)) if planted else float("nan")

    @property
    def recall(self) -> Share:
        return Share(len(self.found), len(self.faults))

    @property
    def precision(self) -> Share:
        """Of all incidents above `info` that claim a root."""
        right = sum(bool(o.right) for o in self.outcomes)
        return Share(right, right + sum(len(o.false) for o in self.outcomes))

    @property
    def first(self) -> Share:
        """Faults that the report names first."""
        return Share.of_true(o.answer is not None and o.answer == o.right for o in self.faults)

    def site(self, among: int) -> Share:
        """Of the faults that were found and have a place: it is among the first so many sites told."""
        placed = [o for o in self.found if o.planted and o.planted.sites]
        ranks = (o.site_rank() for o in placed)
        return Share.of_true(rank is not None and rank < among for rank in ranks)

    @cached_property
    def onset_errors(self) -> list[int]:
        return [error for o in self.found if (error := o.onset_error()) is not None]

    @property
    def onset(self) -> Share:
        """Onsets that lie in the truth's window."""
        return Share.of_true(error == 0 for error in self.onset_errors)

    def cause(self, among: int = NEAR) -> Share:
        return self._named(
            among, lambda o: o.right.causes if o.right else (), lambda o: o.fault.causes if o.fault else ()
        )

    def fix(self, among: int = NEAR) -> Share:
        return self._named(
            among, lambda o: o.right.fixes if o.right else (), lambda o: o.fault.fixes if o.fault else ()
        )

    def _named(
        self,
        among: int,
        said: Callable[[Outcome], Sequence[str]],
        true: Callable[[Outcome], Sequence[str]],
    ) -> Share:
        known = [o for o in self.found if true(o)]
        return Share.of_true(bool({*said(o)[:among]} & {*true(o)}) for o in known)

    @cached_property
    def leads(self) -> list[float]:
        """Steps by which stabdiag spoke before a watch on the loss alone, of faults that can be seen earlier.
        Where the watch was silent it is infinite, and where the fault was missed, minus infinity."""
        able = [o for o in self.faults if o.fault and o.fault.leads]
        return [lead(o) for o in able]

    @property
    def lead_share(self) -> Share:
        return Share.of_true(steps > 0 for steps in self.leads)

    @cached_property
    def false_alarms(self) -> Rate:
        return Rate(sum(len(o.loud) for o in self.controls), sum(o.steps for o in self.controls))

    @cached_property
    def critical_alarms(self) -> Rate:
        grave = sum(told.severity is Severity.critical for o in self.controls for told in o.loud)
        return Rate(grave, sum(o.steps for o in self.controls))

    @cached_property
    def confusion(self) -> dict[tuple[str, str], int]:
        """(what was planted, the root of the first incident) to how often."""
        counts: Counter[tuple[str, str]] = Counter()
        for o in (*self.faults, *self.controls):
            answer = o.answer
            planted = proper(o) if o.planted else CONTROL
            if answer is None:
                said = NOTHING
            elif o.fault and answer.root in o.fault.signatures:
                said = planted
            else:
                said = answer.root
            counts[planted, said] += 1
        return dict(counts)

    def by_dose(self) -> dict[str, list[tuple[float, Share]]]:
        """Of each fault with several doses: the share found at each."""
        table: dict[str, dict[float, list[bool]]] = {}
        for o in self.outcomes:
            if o.fault and len(o.fault.doses) > 1:
                table.setdefault(o.fault.id, {}).setdefault(o.case.dose, []).append(o.right is not None)
        return {
            name: [(dose, Share.of_true(hits)) for dose, hits in doses.items()]
            for name, doses in sorted(table.items())
        }


@dataclass(frozen=True)
class Rate:
    """Events in so many steps, and the exact 95 % interval of a Poisson rate (Garwood 1936), per 1,000
    steps."""

    events: int
    steps: int

    @property
    def value(self) -> float:
        return 1000 * self.events / self.steps if self.steps else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        if not self.steps:
            return float("nan"), float("nan")
        tail = (1 - LEVEL) / 2
        low = chi2.ppf(tail, 2 * self.events) / 2 if self.events else 0.0
        high = chi2.ppf(1 - tail, 2 * (self.events + 1)) / 2
        return 1000 * float(low) / self.steps, 1000 * float(high) / self.steps


def proper(outcome: Outcome) -> str:
    """The signature that names the fault of a case."""
    return outcome.fault.signatures[0] if outcome.fault else CONTROL


def lead(outcome: Outcome) -> float:
    if outcome.alarm is None:
        return float("-inf")
    return float("inf") if outcome.loss_alarm is None else float(outcome.loss_alarm - outcome.alarm)
