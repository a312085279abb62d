"""What interventions did: counted, and told in the run's events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from stabdiag.capture.subject import Subject


class Ledger:
    """`acting` is the intervention that is being called; all that is told is of it."""

    def __init__(self) -> None:
        self.acting = ""
        self.counts: Counter[tuple[str, str]] = Counter()
        self._told: set[tuple[str, str]] = set()

    def count(self, action: str) -> bool:
        """Whether it is the first of its kind."""
        self.counts[self.acting, action] += 1
        return self.counts[self.acting, action] == 1

    def of(self, id: str) -> dict[str, int]:
        """Action -> number of times."""
        return {action: count for (who, action), count in self.counts.items() if who == id}

    def first_time(self, what: str) -> bool:
        new = (self.acting, what) not in self._told
        self._told.add((self.acting, what))
        return new


class Scene:
    """What an intervention is called with: in the optimizer step `number`. `stop(because)` asks for the end
    of the target."""

    def __init__(self, subject: Subject, number: int, ledger: Ledger, stop: Callable[[str], None]) -> None:
        self.subject = subject
        self.number = number
        self.stop = stop
        self._ledger = ledger

    def count(self, action: str, **data: Any) -> None:
        """Counts an action; the first of its kind is an event."""
        if self._ledger.count(action):
            self._event(action, data)

    def tell(self, action: str, **data: Any) -> None:
        """Counts an action, and makes an event of each."""
        self._ledger.count(action)
        self._event(action, data)

    def _event(self, action: str, data: dict[str, Any]) -> None:
        who = {"intervention": self._ledger.acting, "action": action}
        self.subject.event("intervention", at=self.number, **who, **data)

    def cannot(self, because: str) -> None:
        """Says in the coverage, once, that the intervention can do nothing here."""
        if self._ledger.first_time(because):
            self.subject.event("coverage", what=f"intervention {self._ledger.acting}", because=because)
