"""A picture of one byte a cell, in the colours of a palette."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int, int]


def data_address(cells: NDArray[np.uint8], palette: Sequence[Colour]) -> str:
    """`cells` [rows, columns], not empty, as a PNG in a `data:` address; `palette` has 256 colours."""
    rows, columns = cells.shape
    scanlines = np.zeros((rows, columns + 1), np.uint8)  # each begins with its filter: none
    scanlines[:, 1:] = cells
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(channel for colour in palette for channel in colour[:3])),
        (b"tRNS", bytes(colour[3] for colour in palette)),
        (b"IDAT", zlib.compress(scanlines.tobytes(), 9)),
        (b"IEND", b""),
    ]
    picture = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in parts)
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
