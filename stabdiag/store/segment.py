"""One Arrow file of rows, read up to a given size without copying, however damaged it is."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from stabdiag.store.layout import Columns, RowLayout

MESSAGE = b"\xff\xff\xff\xff"  # begins every message of an Arrow stream


class Segment(NamedTuple):
    """`note` says what of the file could not be read, empty where all could."""

    sites: tuple[str, ...]
    statistics: tuple[str, ...]
    columns: Columns
    note: str


NOTHING = Columns(np.empty(0, np.int64), np.empty(0), ())


class SegmentReader:
    """Remembers the schema and how many rows were whole, so that a file which grew costs its growth."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._layout: RowLayout | None = None
        self._start = 0
        self._whole = 0

    def read(self, size: int) -> Segment:
        """What the first `size` bytes hold. The arrays are views of the mapped file where that can be."""
        try:
            with self._path.open("rb") as file:
                size = min(size, file.seek(0, 2))
                data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
            layout = self._layout = self._layout or self._schema(data)
        except (OSError, ValueError, TypeError, KeyError, MemoryError, pa.ArrowException) as error:
            return Segment((), (), NOTHING, self._note(f"could not be read: {error}"))
        if layout is None:
            return Segment((), (), NOTHING, "")
        columns, note = self._rows(data, layout)
        return Segment(layout.sites, layout.statistics, columns, note)

    def _schema(self, data: mmap.mmap | bytes) -> RowLayout | None:
        """None where the file ends within its first row, which a killed writer may leave behind."""
        source = pa.BufferReader(pa.py_buffer(data))
        try:
            layout = RowLayout(pa.ipc.read_schema(source))
        except (ValueError, TypeError, KeyError, OSError, pa.ArrowException):
            if data.find(MESSAGE, len(MESSAGE)) < 0 and data[:4] == MESSAGE[: len(data)]:
                return None
            raise
        self._start = source.tell()
        return layout

    def _rows(self, data: mmap.mmap | bytes, layout: RowLayout) -> tuple[Columns, str]:
        stride, head = len(layout.form), np.frombuffer(layout.head, np.uint64)
        rows = max(0, len(data) - self._start) // stride
        new = rows - self._whole
        if new > 0:
            at = self._start + self._whole * stride
            heads = np.ndarray((new, len(head)), np.uint64, data, at, (stride, 8))
            same = (heads == head).all(axis=1)
            if not same.all():
                return self._scattered(data, layout)
            self._whole = rows
        return layout.columns(memoryview(data), self._start, rows), ""

    def _scattered(self, data: mmap.mmap | bytes, layout: RowLayout) -> tuple[Columns, str]:
        """Copies of the rows that are whole, found by their heads, from between damaged bytes."""
        stride = len(layout.form)
        heads = list(_occurrences(data, layout.head, self._start))
        if not heads:
            return self._by_pyarrow(data, layout)
        ends = [*heads[1:], len(data)]
        rows = [data[at : at + stride] for at, end in zip(heads, ends, strict=True) if at + stride <= end]
        expected = (len(data) - self._start) // stride
        note = self._note(f"is damaged: {len(rows)} of about {expected} rows could be read")
        return layout.columns(b"".join(rows), 0, len(rows)), note

    def _by_pyarrow(self, data: mmap.mmap | bytes, layout: RowLayout) -> tuple[Columns, str]:
        """For streams that another writer, or another version of Arrow, encoded differently."""
        source = pa.BufferReader(pa.py_buffer(data))
        stream = pa.ipc.open_stream(source)
        batches, note, at = [], "", self._start
        try:
            for batch in stream:
                batch.validate(full=True)
                batches.append(batch)
                at = source.tell()
        except (ValueError, OSError, pa.ArrowException):
            if len(data) - at >= len(layout.form) or data.find(MESSAGE, at + len(MESSAGE)) >= 0:
                note = self._note(f"is damaged: only its first {sum(map(len, batches))} rows could be read")
        step, time, *lists = stream.schema.empty_table().columns
        if batches:
            step, time, *lists = pa.Table.from_batches(batches).combine_chunks().columns
        width = len(layout.sites)
        values = (list_.combine_chunks().values.to_numpy(zero_copy_only=False) for list_ in lists)
        return Columns(step.to_numpy(), time.to_numpy(), tuple(v.reshape(-1, width) for v in values)), note

    def _note(self, what: str) -> str:
        return f"{self._path.parent.name}/{self._path.name} {what}"


def _occurrences(data: mmap.mmap | bytes, part: bytes, start: int) -> Iterator[int]:
    at = data.find(part, start)
    while at >= 0:
        yield at
        at = data.find(part, at + 1)
