"""The kinds that one process recorded, read when they are first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from stabdiag.core.run import KindData
from stabdiag.core.site import Site
from stabdiag.store.segment import Segment, SegmentReader
from stabdiag.store.sites import SitesByName


class Kinds(Mapping[str, KindData]):
    """Reads a kind when it is first asked for; its names are known without."""

    def __init__(self, files: Mapping[str, Sequence[tuple[SegmentReader, int]]], sites: SitesByName) -> None:
        self._files = files
        self._sites = sites
        self._read: dict[str, tuple[KindData, tuple[str, ...]]] = {}

    def _kind(self, kind: str) -> tuple[KindData, tuple[str, ...]]:
        if kind not in self._read:
            segments = [reader.read(size) for reader, size in self._files[kind]]
            notes = tuple(segment.note for segment in segments if segment.note)
            self._read[kind] = _joined(kind, segments, self._sites), notes
        return self._read[kind]

    def __getitem__(self, kind: str) -> KindData:
        return self._kind(kind)[0]

    @property
    def notes(self) -> Iterator[str]:
        """What of the files could not be read. Reads all kinds."""
        for kind in self._files:
            yield from self._kind(kind)[1]

    def __contains__(self, kind: object) -> bool:
        return kind in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _joined(kind: str, segments: Sequence[Segment], known: SitesByName) -> KindData:
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
