"""JSON lines of metrics: one object a line, nested ones with their names joined by a slash."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stabdiag.store.importer import IMPORTERS, Importer, Log
from stabdiag.store.naming import knows
from stabdiag.store.rows import add_rows, encoding_of, flat, head

SUFFIXES = (".jsonl", ".ndjson")
FIRST = 20
"""Lines that say whether a file in a folder holds metrics of a training."""


def _takes(path: Path) -> bool:
    return path.suffix.lower() in (*SUFFIXES, ".json")


def _claims(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder / name for name in names if name.lower().endswith(SUFFIXES) and _holds(folder / name)]


def _holds(path: Path) -> bool:
    rows, _ = _parsed(head(path).splitlines()[:FIRST])
    return any(knows(name) for row in rows for name in flat(row))


def _read(path: Path) -> Log:
    log = Log()
    text = path.read_text(encoding=encoding_of(path), errors="replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, list):
        rows, bad = [row for row in document if isinstance(row, dict)], 0
    else:
        rows, bad = _parsed(text.splitlines())
    if bad:
        log.notes.append(f"{path.name}: {bad:,} lines could not be read")
    add_rows(log, rows)
    return log


def _parsed(lines: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """The objects, and how many lines held none."""
    rows, bad = [], 0
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad += 1
    return rows, bad


IMPORTERS.add(Importer("jsonl", "JSON lines of metrics", _claims, _takes, _read, precedence=4))
