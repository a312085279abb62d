"""A long table is gone through in blocks of rows, so that what is worked out of it needs a little memory."""

from __future__ import annotations

from collections.abc import Iterator

CELLS = 1 << 18
"""Cells of a block: in float64 2 MiB, about what a core keeps at hand."""


def blocks(rows: int, width: int) -> Iterator[slice]:
    """The rows of a table of `width` columns, in order."""
    height = max(CELLS // max(width, 1), 1)
    return (slice(at, min(at + height, rows)) for at in range(0, rows, height))
