"""Errors that a user can cause: one line that says what is wrong, and a hint."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StabdiagError(Exception):
    """A mistake in the input or the surroundings, told in one line.

    `hint` says what to do about it. The command line prints both without a traceback.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UnknownName(StabdiagError):
    """A name that no catalogue has; the hint offers the nearest ones."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`stabdiag explain` lists all names"
        super().__init__(f"there is no {what} {name!r}", hint)
        self.name = name


class DamagedRun(StabdiagError):
    """A run directory that cannot be read, or is none."""
