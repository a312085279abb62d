"""A run directory as a `Run`: any prefix of any file, and what is left of damaged ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stabdiag.core.errors import DamagedRun, StabdiagError
from stabdiag.core.event import Event
from stabdiag.core.run import KindData, Run, RunInfo
from stabdiag.core.site import KINDS, Site
from stabdiag.store.directory import is_run, ranks
from stabdiag.store.events import read_events
from stabdiag.store.info import read_info
from stabdiag.store.segment import Segment, SegmentReader
from stabdiag.store.sites import by_name, read_sites


def load(path: Path, rank: int | None = None) -> Run:
    """The run in `path`, as process `rank` saw it (default: the lowest recorded).

    Raises DamagedRun where there is no run, or one of a newer version; StabdiagError for a rank that
    was not recorded. Whatever else is wrong with the files stands in the run's `notes`.
    """
    if not is_run(path):
        raise DamagedRun(f"{path} is no run directory", "`stabdiag run train.py` makes one")
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

    def refresh(self) -> Run:
        """The run as far as it is written now. Raises DamagedRun where a file may not be opened."""
        try:
            return self._read()
        except OSError as error:
            raise DamagedRun(f"{self._path} cannot be read: {error.strerror}") from error

    def _read(self) -> Run:
        recorded = ranks(self._path)
        rank = self._rank if self._rank is not None else min(recorded, default=0)
        # Sizes first: a site is described before its first row is written, so no row lacks its site.
        sizes = {path: path.stat().st_size for path in self._path.glob(f"rank-{rank}/*.arrows")}
        self._sites.refresh()
        self._events.refresh()
        info, note = read_info(self._path)
        files: dict[str, list[tuple[SegmentReader, int]]] = {}
        for path in sorted(sizes, key=_place):
            reader = self._segments.setdefault(path, SegmentReader(path))
            files.setdefault(_place(path)[1], []).append((reader, sizes[path]))
        events = tuple(self._events.records)
        notes = filter(None, (note, self._sites.note, self._events.note))
        kinds = Kinds(files, by_name(self._sites.records, rank))
        return StoredRun(_completed(info, events, len(recorded)), kinds, events, self._path, tuple(notes))


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
        return tuple(dict.fromkeys([*found, *(self.kinds.notes if isinstance(self.kinds, Kinds) else ())]))

    @notes.setter
    def notes(self, found: tuple[str, ...]) -> None:
        vars(self)["notes"] = found


class Kinds(Mapping[str, KindData]):
    """Reads a kind when it is first asked for; its names are known without."""

    def __init__(
        self,
        files: Mapping[str, Sequence[tuple[SegmentReader, int]]],
        sites: Mapping[tuple[str, str], Site],
    ) -> None:
        self._files = files
        self._sites = sites
        self._read: dict[str, tuple[KindData, tuple[str, ...]]] = {}

    def _kind(self, kind: str) -> tuple[KindData, tuple[str, ...]]:
        if kind not in self._read:
            segments = [reader.read(size) for reader, size in self._files[kind]]
            notes = tuple(segment.note for segment in segments if segment.note)
            self._read[kind] = _merged(kind, segments, self._sites), notes
        return self._read[kind]

    def __getitem__(self, kind: str) -> KindData:
        return self._kind(kind)[0]

    @property
    def notes(self) -> Iterator[str]:
        for kind in self._files:
            yield from self._kind(kind)[1]

    def __contains__(self, kind: object) -> bool:
        return kind in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _merged(kind: str, segments: Sequence[Segment], known: Mapping[tuple[str, str], Site]) -> KindData:
    """The union of the segments' sites and statistics over their steps, NaN where one has no value."""
    filled = [segment for segment in segments if len(segment.columns.steps)] or list(segments[:1])
    names = tuple(dict.fromkeys(name for segment in filled for name in segment.sites))
    sites = tuple(known.get((kind, name)) or Site(kind, name) for name in names)
    only = filled[0]
    if len(filled) == 1 and only.sites == names and (np.diff(only.columns.steps) > 0).all():
        values = dict(zip(only.statistics, only.columns.values, strict=False))
        return KindData(only.columns.steps, only.columns.times, sites, values)
    steps, at = np.unique(np.concatenate([s.columns.steps for s in filled]), return_inverse=True)
    times = np.empty(len(steps))
    times[at] = np.concatenate([s.columns.times for s in filled])
    statistics = dict.fromkeys(name for segment in filled for name in segment.statistics)
    values = {name: np.full((len(steps), len(names)), np.nan, np.float32) for name in statistics}
    position = {name: index for index, name in enumerate(names)}
    begin = 0
    for segment in filled:
        rows = at[begin : begin + len(segment.columns.steps)]
        begin += len(rows)
        where = np.ix_(rows, np.array([position[name] for name in segment.sites], np.intp))
        for name, array in zip(segment.statistics, segment.columns.values, strict=True):
            values[name][where] = array
    return KindData(steps, times, sites, values)
