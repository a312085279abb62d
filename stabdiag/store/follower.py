"""A run that is still being written."""

from __future__ import annotations

from pathlib import Path

from stabdiag.core.run import Run
from stabdiag.store.directory import is_run
from stabdiag.store.foreign import LogFollower, find
from stabdiag.store.reader import RunFiles


class Follower:
    """Gives the run in `path` as far as it is written; neither it nor any of its files needs to exist yet.

    A refresh costs what is new since the last one: events and sites are parsed once, and rows are
    looked at once; of another tool's log it costs a reading of the whole, where that has changed. Each run
    that it gave stays as it was.
    """

    def __init__(self, path: Path) -> None:
        foreign = path.exists() and not is_run(path) and find(path) is not None
        self._files: RunFiles | LogFollower = LogFollower(path) if foreign else RunFiles(path)

    def refresh(self) -> Run:
        """Raises DamagedRun where the directory cannot be read, or was written by a newer version."""
        return self._files.refresh()
