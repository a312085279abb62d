"""What counts as one training step, where several optimizers may take turns."""

from __future__ import annotations

from collections.abc import Hashable


class StepClock:
    """The first optimizer that steps is the clock: a row closes when it has stepped.

    Others, of whatever pace, are part of the row in which they step. One that steps twice before the
    clock does closes a row itself, and is the clock from then on: it is the faster one, or a second phase
    of training has its own optimizer. One that steps on the gradients of the row that was just closed is
    the clock as long as it goes on to follow: several optimizers share a backward pass.
    """

    def __init__(self) -> None:
        self._primary: Hashable = None
        self._leader: Hashable = None
        self._stepped: set[Hashable] = set()

    def follows(self, optimizer: Hashable) -> None:
        """It steps without a backward pass since the last row."""
        if not self._stepped and optimizer != self._primary:
            self._leader, self._primary = self._primary, optimizer

    def overdue(self) -> bool:
        """At the next forward pass: whether the row still waits for one that did not follow this time."""
        if self._leader is None or self._leader not in self._stepped:
            return False
        self._leader, self._primary = None, self._leader
        return True

    def closes_before(self, optimizer: Hashable) -> bool:
        """Whether the row ends before this optimizer steps, because it already stepped in it."""
        if optimizer not in self._stepped:
            return False
        self._primary = optimizer
        return True

    def closes_after(self, optimizer: Hashable) -> bool:
        """Takes note of a step; whether the row ends with it."""
        if self._primary is None:
            self._primary = optimizer
        self._stepped.add(optimizer)
        return optimizer == self._primary

    @property
    def open(self) -> bool:
        """Whether something has stepped since the last row."""
        return bool(self._stepped)

    def close(self) -> None:
        self._stepped.clear()
