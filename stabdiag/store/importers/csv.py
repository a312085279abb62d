"""CSV of metrics: Lightning's CSVLogger, what TensorBoard and wandb export, and tables made by hand."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from stabdiag.store.importer import IMPORTERS, Importer, Log
from stabdiag.store.naming import knows
from stabdiag.store.rows import add_rows, encoding_of, head

SUFFIXES = (".csv", ".tsv")
VALUE = "value"
DECIMAL_COMMA = re.compile(r"\s*([+-]?\d*),(\d+([eE][+-]?\d+)?)\s*")
"""As spreadsheets of half the world write numbers; they part columns by semicolons then."""


def _takes(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _claims(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder / name for name in names if name.lower().endswith(SUFFIXES) and _holds(folder / name)]


def _holds(path: Path) -> bool:
    first = head(path).splitlines()[:1]
    return any(knows(name) for header in _lines(first) for name in _named(header, path))


def _read(path: Path) -> Log:
    log = Log()
    with path.open(encoding=encoding_of(path), errors="replace", newline="") as file:
        lines = _lines(file)
        names = _named(next(lines, []), path)
        add_rows(log, [dict(zip(names, line, strict=False)) for line in lines if line])
    return log


def _lines(text: Iterable[str]) -> Iterator[list[str]]:
    lines = iter(text)
    first = next(lines, "")
    whole = (line.replace("\0", "") for line in chain([first], lines))
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(whole, delimiter=delimiter)
    while True:
        with suppress(csv.Error):  # a field beyond any size: its line is left out
            for line in reader:
                yield [_with_a_point(field) for field in line] if delimiter == ";" else line
            return


def _with_a_point(field: str) -> str:
    found = DECIMAL_COMMA.fullmatch(field)
    return f"{found[1]}.{found[2]}" if found else field


def _named(header: Sequence[str], path: Path) -> list[str]:
    """The columns' names as they were before the export: TensorBoard's has a `Value`, and the tag in the
    file's name; wandb's has the run's name before each."""
    columns = [name.strip() for name in header]
    plain = [name.rpartition(" - ")[2] for name in columns]
    lowered = [name.lower() for name in columns]
    if "step" in lowered and VALUE in lowered and len(columns) <= 3:
        tag = path.stem.rpartition("tag-")[2]
        return [tag if name.lower() == VALUE else name for name in columns]
    return plain if len(set(plain)) == len(plain) else _told_apart(columns)


def _told_apart(columns: Sequence[str]) -> list[str]:
    """The first of a name keeps it, the next is `name (2)`."""
    times = Counter[str]()
    told = []
    for name in columns:
        times[name] += 1
        told.append(name if times[name] == 1 else f"{name} ({times[name]})")
    return told


IMPORTERS.add(Importer("csv", "CSV of metrics", _claims, _takes, _read, precedence=3))
