"""What another tool wrote down of a training, and what reads it: one file a format in `importers/`."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stabdiag.core.registry import Registry

LARGEST_STEP = 1 << 53
"""Above it a float cannot tell two steps apart, and no training counts that far."""


@dataclass(frozen=True)
class Scalars:
    """One number through a training, in the order in which it was written down.

    `times` are seconds since the epoch, NaN where unknown. `values` may be non-finite; steps may repeat,
    and go back where a training was restarted.
    """

    steps: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.steps)


@dataclass
class Log:
    """The numbers of one training by the names that the other tool gave them; `notes` says what of the
    files could not be read, or was read in a way that needs telling."""

    scalars: dict[str, Scalars] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, step: float, value: float, time: float = math.nan) -> None:
        """Leaves out what has no step: a negative one, one that is not finite, or beyond any counter."""
        if not 0 <= step < LARGEST_STEP:
            return
        scalars = self.scalars.get(name)
        if scalars is None:
            scalars = self.scalars[name] = Scalars()
        scalars.steps.append(int(step))
        scalars.times.append(time)
        scalars.values.append(value)

    def count_from_zero(self) -> None:
        """Of a tool that tells how many steps were done: what it says after the first is of step 0."""
        for scalars in self.scalars.values():
            scalars.steps[:] = array("q", (max(step - 1, 0) for step in scalars.steps))
        if self.scalars:
            self.notes.append("it counts the steps that were done: its step 1 is step 0 here, as if recorded")


@dataclass(frozen=True)
class Importer:
    """A format of logs.

    `claims(folder, names)` lists the logs that lie in a folder whose files are `names`: files, or the folder
    itself. `takes(file)` says whether a file that the user names is one, or a part of one. `read` raises
    StabdiagError, OSError; whatever else is wrong with a file stands in the notes. `joined` puts the logs
    that are parts of one training together. Where several formats lie side by side the one of the least
    `precedence` speaks.
    """

    id: str
    title: str
    claims: Callable[[Path, Sequence[str]], Sequence[Path]]
    takes: Callable[[Path], bool]
    read: Callable[[Path], Log]
    joined: Callable[[Sequence[Path]], Sequence[Path]] = tuple
    precedence: int = 0


IMPORTERS: Registry[Importer] = Registry("format of logs", "stabdiag.store.importers")

Names = Mapping[str, str]
"""Series by the names that the other tool gave them: `{"training/cost": "run.loss"}`."""
