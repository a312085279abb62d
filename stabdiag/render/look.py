"""What an onlooker knows of a run at a moment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.render.progress import Progress


class State(Enum):
    waiting = "waiting for its first step"
    training = "training"
    quiet = "nothing was written lately"
    gone = "its processes are gone, and nobody wrote how they ended"
    ended = "finished"


@dataclass(frozen=True)
class Look:
    """`diagnosis` is None before the first one."""

    name: str
    state: State
    run: Run
    diagnosis: Diagnosis | None
    progress: Progress
