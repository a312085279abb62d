"""Logs that other tools wrote: found in a folder, read as runs, and followed while they grow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from stabdiag.core.errors import DamagedRun, StabdiagError
from stabdiag.core.run import Run, RunInfo
from stabdiag.store.assembly import assembled
from stabdiag.store.importer import IMPORTERS, Importer, Names

DEEP = 4
"""Folders below the one that is named that are looked into."""
LISTED = 5


class Found(NamedTuple):
    """A log, and how many `others` of its format lie below it."""

    importer: Importer
    path: Path
    others: int = 0


def find(path: Path) -> Found | None:
    """The log that lies at or below `path`, None where there is none.

    StabdiagError where there are several, none of which is at `path` itself. Raises OSError.
    """
    if path.is_file():
        return next((Found(one, path) for one in _ranked() if one.takes(path)), None)
    logs: dict[str, list[Path]] = {}
    for folder, names in _folders(path):
        for importer in _ranked():
            logs.setdefault(importer.id, []).extend(importer.claims(folder, names))
    found = {one.id: _at_or_below(path, one.joined(logs[one.id])) for one in _ranked() if logs.get(one.id)}
    if not found:
        return None
    nearest = {id: min(_depth(log, path) for log in those) for id, those in found.items()}
    chosen = min((IMPORTERS[id] for id in found), key=lambda one: (nearest[one.id], one.precedence))
    those = found[chosen.id]
    here = [log for log in those if _depth(log, path) == 0] or those
    if len(here) > 1:
        raise StabdiagError(f"{path} holds {len(here)} logs ({chosen.title})", f"name one: {_newest(here)}")
    return Found(chosen, here[0], len(those) - 1)


def load_log(path: Path, names: Names | None = None) -> Run:
    """The log at or below `path` as a run; `names` says what numbers of unknown names are.

    Raises DamagedRun where nothing can be read of it, StabdiagError where it is not said which of several.
    """
    try:
        found = find(path)
        if found is None:
            raise DamagedRun(f"{path} is no run directory, and no log that is known", formats())
        log = found.importer.read(found.path)
        if found.others:
            log.notes.append(f"further logs below it that were not read: {found.others:,}")
    except OSError as error:
        raise DamagedRun(f"{path} cannot be read: {error.strerror}") from error
    return assembled(log, found.path, found.importer.title, names or {})


def formats() -> str:
    """What can be read, for a hint."""
    return f"read are run directories, {', '.join(one.title for one in _ranked())}"


class LogFollower:
    """The log at `path` as far as it is written, read again where a file of it changed."""

    def __init__(self, path: Path, names: Names | None = None) -> None:
        self._path = path
        self._names = names
        self._seen: tuple[tuple[str, int, int], ...] = ()
        self._run: Run | None = None

    def refresh(self) -> Run:
        """Of a log that holds nothing yet an empty run. Raises StabdiagError as `load_log`."""
        seen = tuple(self._files())
        if self._run is None or seen != self._seen:
            try:
                run = load_log(self._path, self._names)
            except DamagedRun as error:
                run = Run(RunInfo(), {}, (), self._path, (error.message,))
            self._run, self._seen = run, seen
        return self._run

    def _files(self) -> Iterator[tuple[str, int, int]]:
        files = (
            [self._path]
            if self._path.is_file()
            else [f / n for f, names in _folders(self._path) for n in names]
        )
        for file in files:
            try:
                about = file.stat()
            except OSError:
                continue
            yield str(file), about.st_size, about.st_mtime_ns


def _ranked() -> list[Importer]:
    return sorted(IMPORTERS, key=lambda one: one.precedence)


def _folders(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders with the names of their files, hidden ones left out, no link to a folder followed."""
    for folder, below, names in os.walk(top):
        path = Path(folder)
        deeper = len(path.relative_to(top).parts) < DEEP
        below[:] = sorted(name for name in below if deeper and not name.startswith("."))
        yield path, sorted(names)


def _at_or_below(top: Path, logs: Sequence[Path]) -> list[Path]:
    """A part of a log that was named itself is read alone."""
    return list(dict.fromkeys(log if log.is_relative_to(top) else top for log in logs))


def _depth(log: Path, top: Path) -> int:
    return len(log.relative_to(top).parts) - log.is_file()


def _newest(logs: Sequence[Path]) -> str:
    newest = sorted(logs, key=lambda log: log.stat().st_mtime, reverse=True)
    more = len(newest) - LISTED
    return ", ".join(map(str, newest[:LISTED])) + (f" and {more:,} more" if more > 0 else "")
