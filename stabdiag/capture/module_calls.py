"""Which module was being called when a node of the autograd graph was created."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stabdiag.capture.saved_tensors import created


class ModuleCall(NamedTuple):
    """Nodes of sequence numbers in [start, end) were created in it."""

    name: str
    start: int
    end: int


class ModuleCalls:
    """Told of when calls of modules begin and end; calls nest."""

    def __init__(self) -> None:
        self._open: list[tuple[str, int]] = []
        self._ended: list[ModuleCall] = []

    def enter(self, name: str) -> None:
        self._open.append((name, created()))

    def leave(self, name: str) -> list[ModuleCall]:
        """All calls within the outermost one, if it is that which ends here.

        Calls that never ended, because of an exception, end with the one around them.
        """
        if all(name != open for open, _ in self._open):
            return []
        while self._open:
            ended, start = self._open.pop()
            self._ended.append(ModuleCall(ended, start, created()))
            if ended == name:
                break
        if self._open:
            return []
        calls, self._ended = self._ended, []
        return calls


def innermost(calls: Sequence[ModuleCall], first: int, last: int) -> str | None:
    """The smallest of `calls` in which both these nodes were created."""
    around = [call for call in calls if call.start <= first and last < call.end]
    return min(around, key=lambda call: call.end - call.start).name if around else None
