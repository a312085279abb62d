"""Rows to Arrow files: one write a row, so that a row that was written survives any death."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from stabdiag.core.run import Floats
from stabdiag.core.site import Site
from stabdiag.store.files import write_all
from stabdiag.store.layout import RowLayout, schema_of
from stabdiag.store.sites import append_sites

OPEN_SEGMENTS = 4


class RankWriter:
    """Writes the rows of one process into `rank-<rank>/<kind>.arrows`. Nothing is buffered.

    Each file is an Arrow IPC stream of one schema. Rows of other sites, or with a new statistic,
    go to a further segment, `<kind>-1.arrows`; rows of earlier ones go on where those were. It never
    writes into a file that was there before.
    """

    def __init__(self, run_dir: Path, rank: int) -> None:
        self._run_dir = run_dir
        self._rank = rank
        self._segments: dict[str, list[_Segment]] = {}
        self._described: set[Site] = set()

    def write(
        self, kind: str, step: int, time: float, sites: Sequence[Site], columns: Mapping[str, Floats]
    ) -> None:
        """Appends a row: `columns` holds one float32 [sites] a statistic; one that is left out is NaN.

        Raises OSError when it could not be written; all earlier rows stay readable, and later ones
        can be written once there is space again.
        """
        segments = self._segments.setdefault(kind, [])
        segment = next((s for s in reversed(segments) if s.fits(sites, columns)), None)
        if segment is None:
            segment = self._begin(kind, sites, columns)
            segments.append(segment)
            if len(segments) > OPEN_SEGMENTS:
                segments.pop(0).close()
        try:
            segment.append(step, time, columns)
        except BaseException:
            if not segment.mend():
                segments.remove(segment)
            raise

    def _begin(self, kind: str, sites: Sequence[Site], columns: Mapping[str, Floats]) -> _Segment:
        folder = self._run_dir / f"rank-{self._rank}"
        folder.mkdir(parents=True, exist_ok=True)
        new = [site for site in dict.fromkeys(sites) if site not in self._described]
        if new:
            append_sites(self._run_dir, self._rank, new)
            self._described.update(new)
        schema = schema_of(kind, self._rank, [site.name for site in sites], list(columns))
        layout = RowLayout(schema)
        for number in count():
            path = folder / (f"{kind}-{number}.arrows" if number else f"{kind}.arrows")
            try:
                fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                continue
            return _Segment(fd, tuple(sites), schema.serialize().to_pybytes(), layout)
        raise AssertionError

    def close(self) -> None:
        """Gives the file descriptors back. No row depends on it."""
        for segments in self._segments.values():
            for segment in segments:
                segment.close()
        self._segments.clear()


class _Segment:
    """One file, and the form of its rows."""

    def __init__(self, fd: int, sites: tuple[Site, ...], schema: bytes, layout: RowLayout) -> None:
        self._fd = fd
        self._sites = sites
        self._statistics = frozenset(layout.statistics)
        self._schema = schema
        self._row = bytearray(layout.form)
        self._begun = False
        self._steps, self._times, values = layout.columns(self._row, 0, 1)
        self._values = {name: array[0] for name, array in zip(layout.statistics, values, strict=True)}

    def fits(self, sites: Sequence[Site], columns: Mapping[str, Floats]) -> bool:
        # Tuples compare the same objects by identity: 200 sites cost about a microsecond.
        return columns.keys() <= self._statistics and tuple(sites) == self._sites

    def append(self, step: int, time: float, columns: Mapping[str, Floats]) -> None:
        self._steps[0] = step
        self._times[0] = time
        for name, row in self._values.items():
            row[:] = columns.get(name, np.nan)
        write_all(self._fd, self._row if self._begun else self._schema + self._row)
        self._begun = True

    def mend(self) -> bool:
        """Cuts off a row that was written in part. False where that is refused: the file is given up."""
        try:
            size = os.fstat(self._fd).st_size
            rows, torn = divmod(size - len(self._schema), len(self._row))
            self._begun = rows > 0
            if not self._begun:
                os.ftruncate(self._fd, 0)
            elif torn:
                os.ftruncate(self._fd, size - torn)
        except OSError:
            self.close()
            return False
        return True

    def close(self) -> None:
        os.close(self._fd)
