"""wandb's own file of a run, `run-<id>.wandb`, as offline runs keep it."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stabdiag.core.errors import StabdiagError
from stabdiag.store.importer import IMPORTERS, Importer, Log
from stabdiag.store.rows import add_rows

SUFFIX = ".wandb"
HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
BLOCK = 32768
CHUNK = struct.Struct("<IHB")
"""Checksum, length, and type of a chunk; the file is a log of LevelDB's form with another checksum."""
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def _takes(path: Path) -> bool:
    return path.suffix == SUFFIX


def _claims(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder / name for name in names if name.endswith(SUFFIX)]


def _read(path: Path) -> Log:
    try:
        from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined, unused-ignore]
    except ImportError:
        raise StabdiagError(
            f"{path.name} takes the wandb package to read", "pip install 'stabdiag[wandb]'"
        ) from None
    from google.protobuf.message import DecodeError

    log = Log()
    data = path.read_bytes()
    rows = []
    for record in _records(data, path, log):
        try:
            entry = Record.FromString(record)
        except DecodeError:
            continue
        if entry.HasField("history"):
            rows.append(_row(entry.history))
    add_rows(log, rows)
    return log


def _records(data: bytes, path: Path, log: Log) -> Iterator[bytes]:
    """The records that are whole. Of a damaged block the rest is left out; the next one begins anew."""
    if data[: len(HEADER)] != HEADER:
        log.notes.append(f"{path.name} is damaged: it does not begin as a file of wandb's")
        return
    at, lost = len(HEADER), 0
    begun: bytearray | None = None
    while at + CHUNK.size <= len(data):
        left = BLOCK - at % BLOCK
        if left < CHUNK.size:
            at += left
            continue
        checksum, length, kind = CHUNK.unpack_from(data, at)
        chunk = data[at + CHUNK.size : at + CHUNK.size + length]
        if length > left - CHUNK.size or zlib.crc32(chunk, zlib.crc32(bytes([kind]))) != checksum:
            lost += at + left <= len(data)  # the last block may just not be whole yet
            begun = None
            at += left
            continue
        at += CHUNK.size + length
        if kind in (FULL, FIRST):
            begun = bytearray()
        if begun is None:
            continue
        begun += chunk
        if kind in (FULL, LAST):
            yield bytes(begun)
            begun = None
    if lost:
        log.notes.append(f"{path.name} is damaged: {lost:,} of its blocks of 32 KiB could not be read whole")


def _row(history: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: _value(item.value_json) for item in history.item}


def _value(text: str) -> Any:
    """JSON with NaN and Infinity; None for what is none."""
    with suppress(ValueError):
        return float(text)  # nearly all are
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return None


IMPORTERS.add(Importer("wandb", "wandb's log of a run", _claims, _takes, _read, precedence=2))
