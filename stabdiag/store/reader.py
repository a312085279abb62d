"""A run directory as a `Run`: any prefix of any file, and what is left of damaged ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stabdiag.core.errors import DamagedRun, StabdiagError
from stabdiag.core.event import Event
from stabdiag.core.run import Run, RunInfo
from stabdiag.core.site import KINDS
from stabdiag.store.directory import is_run, ranks
from stabdiag.store.events import read_events
from stabdiag.store.foreign import load_log
from stabdiag.store.importer import Names
from stabdiag.store.info import read_info
from stabdiag.store.kinds import Kinds
from stabdiag.store.merge import MergedKinds, Settled
from stabdiag.store.segment import SegmentReader
from stabdiag.store.sites import by_rank, read_sites
from stabdiag.store.world import in_order, world_of


def load(path: Path, rank: int | None = None, names: Names | None = None) -> Run:
    """The run in `path`: of all processes of a world together, or as process `rank` saw it.

    Of processes that trained apart it is that of the lowest, where no other is named. `names` says which
    series the numbers of another tool's log are, where their own names do not tell.

    Raises DamagedRun where there is no run, or one of a newer version; StabdiagError for a rank that
    was not recorded. Whatever else is wrong with the files stands in the run's `notes`.
    """
    if not is_run(path):
        return load_log(path, names)
    if names:
        raise StabdiagError(f"{path} is a run directory", "--map is for the logs of other tools")
    recorded = ranks(path)
    if rank is not None and rank not in recorded:
        raise StabdiagError(
            f"rank {rank} of {path} was not recorded", f"recorded: {', '.join(map(str, recorded)) or 'none'}"
        )
    return RunFiles(path, rank).refresh()


class RunFiles:
    """The files of a run that may not be there yet; what was parsed once is not parsed again."""

    def __init__(self, path: Path, rank: int | None = None) -> None:
        self._path = path
        self._rank = rank
        self._events = read_events(path)
        self._sites = read_sites(path)
        self._segments: dict[Path, SegmentReader] = {}
        self._settled: dict[str, Settled] = {}

    def refresh(self) -> Run:
        """The run as far as it is written now. Raises DamagedRun where a file may not be opened."""
        try:
            return self._read()
        except OSError as error:
            raise DamagedRun(f"{self._path} cannot be read: {error.strerror}") from error

    def _read(self) -> Run:
        recorded = ranks(self._path)
        # Sizes first: a site is described before its first row is written, so no row lacks its site.
        numbers = recorded if self._rank is None else (self._rank,)
        sizes = {number: self._sizes(number) for number in numbers}
        self._sites.refresh()
        self._events.refresh()
        info, note = read_info(self._path)
        events = tuple(self._events.records)
        world = world_of(events, recorded) if self._rank is None else (self._rank,)
        sites = by_rank(self._sites.records)
        kinds: Kinds | MergedKinds
        if len(world) > 1:
            each = {number: Kinds(self._files(sizes[number]), sites(number)) for number in world}
            kinds, events = MergedKinds(each, self._settled), in_order(events)
        else:
            own = next(iter(world), 0)
            kinds = Kinds(self._files(sizes.get(own, {})), sites(own))
        notes = filter(None, (note, self._sites.note, self._events.note))
        return StoredRun(_completed(info, events, len(recorded)), kinds, events, self._path, tuple(notes))

    def _sizes(self, rank: int) -> dict[Path, int]:
        return {path: path.stat().st_size for path in self._path.glob(f"rank-{rank}/*.arrows")}

    def _files(self, sizes: Mapping[Path, int]) -> dict[str, list[tuple[SegmentReader, int]]]:
        files: dict[str, list[tuple[SegmentReader, int]]] = {}
        for path in sorted(sizes, key=_place):
            reader = self._segments.setdefault(path, SegmentReader(path))
            files.setdefault(_place(path)[1], []).append((reader, sizes[path]))
        return files


def _place(path: Path) -> tuple[int, str, int]:
    """Sorts files by the design's order of kinds, then by segment: (position of the kind, kind, segment)."""
    match = re.fullmatch(r"(.+?)(?:-(\d+))?", path.stem)
    kind, number = match.groups() if match else (path.stem, None)
    return KINDS.index(kind) if kind in KINDS else len(KINDS), kind, int(number or 0)


def _completed(info: RunInfo, events: Sequence[Event], processes: int) -> RunInfo:
    """With what the processes said of themselves, where run.json does not say it."""
    said = Run(info, {}, events)
    versions, world_size = said.fact("process", "versions"), said.fact("process", "world_size")
    return replace(
        info,
        processes=processes,
        versions=info.versions or (versions if isinstance(versions, Mapping) else {}),
        device=info.device or str(said.fact("process", "device", "")),
        world_size=max(info.world_size, world_size if isinstance(world_size, int) else 1),
    )


class StoredRun(Run):
    """A run whose kinds are read when they are first asked for."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Speaks of all files, and so reads all kinds."""
        found: tuple[str, ...] = vars(self)["notes"]
        return tuple(
            dict.fromkeys(
                [*found, *(self.kinds.notes if isinstance(self.kinds, Kinds | MergedKinds) else ())]
            )
        )

    @notes.setter
    def notes(self, found: tuple[str, ...]) -> None:
        vars(self)["notes"] = found
