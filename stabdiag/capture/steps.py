"""What counts as one training step, where several optimizers may take turns."""

from __future__ import annotations

from collections.abc import Hashable

TAKEOVER = 3


class StepClock:
    """The first optimizer that steps is the clock: a row closes when it has stepped.

    Others, of whatever pace, are part of the row in which they step. One that steps twice before the
    clock does closes a row itself, and takes over as the clock when it has done so three times running:
    a second phase of training has its own optimizer.
    """

    def __init__(self) -> None:
        self._primary: Hashable = None
        self._stepped: set[Hashable] = set()
        self._alone = 0

    def closes_before(self, optimizer: Hashable) -> bool:
        """Whether the row ends before this optimizer steps, because it already stepped in it."""
        return optimizer in self._stepped

    def closes_after(self, optimizer: Hashable) -> bool:
        """Takes note of a step; whether the row ends with it."""
        if self._primary is None or self._alone >= TAKEOVER:
            self._primary = optimizer
        self._stepped.add(optimizer)
        return optimizer == self._primary

    @property
    def open(self) -> bool:
        """Whether something has stepped since the last row."""
        return bool(self._stepped)

    def close(self) -> None:
        self._alone = 0 if self._primary in self._stepped else self._alone + 1
        self._stepped.clear()
