"""The two ways in which files are written here: appended to whole, and replaced whole."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stabdiag.core.errors import DamagedRun
from stabdiag.core.finding import plain


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """One `os.write`; the rest where the system took a part. Raises OSError, perhaps after a part."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def encode(record: Mapping[str, Any], indent: int | None = None) -> bytes:
    """ASCII JSON that any parser takes: non-finite numbers are null, foreign objects their text."""
    return json.dumps(plain(record), default=_foreign, allow_nan=False, indent=indent).encode("ascii")


def _foreign(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, set | frozenset):
        return plain(sorted(value, key=str))
    return str(value)


def replace(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a JSON document; whoever reads at that moment sees the old one or the new. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        temporary.write_bytes(encode(record, indent=2) + b"\n")
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read(path: Path, schema: str) -> dict[str, Any]:
    """The JSON document at `path`, of `schema` ("name/version") or an older version of it.

    Raises DamagedRun for a newer version, ValueError for what is no such document, OSError.
    """
    record = json.loads(path.read_bytes())
    if not isinstance(record, dict):
        raise ValueError(f"{path.name} holds no JSON object")  # noqa: TRY004
    name, _, version = schema.partition("/")
    found, _, found_version = str(record.get("schema")).partition("/")
    if found != name or not found_version.isdecimal():
        raise ValueError(f"{path.name} is not in the schema {schema}")
    if int(found_version) > int(version):
        raise DamagedRun(
            f"{path} was written by a newer stabdiag ({found}/{found_version}, this one reads {schema})",
            "update it: pip install --upgrade stabdiag",
        )
    return record
