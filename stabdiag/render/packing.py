"""Bytes as text inside a page, compressed: a fifteenth less of it than in base64."""

from __future__ import annotations

import base64
import gzip


def compressed(content: bytes, level: int = 9) -> bytes:
    """The same for the same content, whenever."""
    return gzip.compress(content, level, mtime=0)


def as_text(content: bytes) -> str:
    """Base85 of RFC 1924, with a comma in the place of `<`, which a page would take for the start of an
    element. `charts.js` reads it."""
    return base64.b85encode(content).decode("ascii").replace("<", ",")
