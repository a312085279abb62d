"""Where the numbers of a row lie in its encoded Arrow record batch.

All record batches of one row and one schema have the same bytes but for the numbers. So a row is
written by filling in a form, and a file of rows is read as strided arrays over its bytes: pyarrow
encodes one form and says where it finds each column in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stabdiag.core.run import Floats


class Columns(NamedTuple):
    """`steps` int64 [rows], `times` float64 [rows], and one float32 [rows, sites] a statistic."""

    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    values: tuple[Floats, ...]


def schema_of(kind: str, rank: int, sites: Sequence[str], statistics: Sequence[str]) -> pa.Schema:
    numbers = pa.list_(pa.float32(), len(sites))
    fields = [("step", pa.int64()), ("time", pa.float64()), *((name, numbers) for name in statistics)]
    return pa.schema(fields, {"kind": kind, "rank": str(rank), "sites": json.dumps(list(sites))})


class RowLayout:
    """`form` is an encoded row of zeros, `head` the part of it that precedes the numbers."""

    def __init__(self, schema: pa.Schema) -> None:
        """Raises ValueError, KeyError or TypeError where `schema` is not one of `schema_of`."""
        self.sites = tuple(map(str, json.loads(schema.metadata[b"sites"])))
        self.statistics = tuple(schema.names[2:])
        numbers = pa.list_(pa.float32(), len(self.sites))
        if schema.types != [pa.int64(), pa.float64(), *(numbers for _ in self.statistics)]:
            raise ValueError("the columns do not agree with the sites")
        # From buffers: pa.array(list) would import pandas, to see whether the list is one of its own.
        zero = pa.py_buffer(bytes(4 * max(len(self.sites), 2)))
        leaf = pa.Array.from_buffers(pa.float32(), len(self.sites), [None, zero])
        # Not by from_arrays, which divides by the number of sites and takes the process down where it is 0.
        zeros = pa.Array.from_buffers(numbers, 1, [None], children=[leaf])
        head = [pa.Array.from_buffers(kind, 1, [None, zero]) for kind in schema.types[:2]]
        columns = [*head, *(zeros for _ in self.statistics)]
        form = pa.record_batch(columns, schema=schema).serialize()
        decoded = pa.ipc.read_record_batch(form, schema).columns
        leaves = [*decoded[:2], *(column.values for column in decoded[2:])]
        self._offsets = [leaf.buffers()[1].address - form.address for leaf in leaves]
        self.form = form.to_pybytes()
        self.head = self.form[: self._offsets[0]]

    def columns(self, buffer: bytes | bytearray | memoryview, start: int, rows: int) -> Columns:
        """Views of the `rows` whole rows that follow each other from byte `start` of `buffer`."""
        if not rows:
            buffer, start = self.form, 0  # numpy wants even no rows to lie inside the buffer
        stride, width = len(self.form), len(self.sites)
        step, time, *lists = (start + offset for offset in self._offsets)

        def values(at: int) -> Floats:
            if not width:  # no sites: their place may lie behind the end of the buffer
                return np.empty((rows, 0), np.float32)
            view: Floats = np.ndarray((rows, width), "<f4", buffer, at, (stride, 4))
            return view

        return Columns(
            np.ndarray((rows,), "<i8", buffer, step, (stride,)),
            np.ndarray((rows,), "<f8", buffer, time, (stride,)),
            tuple(map(values, lists)),
        )
