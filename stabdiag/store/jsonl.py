"""Append-only files of one JSON object a line, that several processes may share."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from stabdiag.store.files import encode, write_all

Record = TypeVar("Record")


def append_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Appends all records with one write. Raises OSError."""
    data = b"".join(encode(record) + b"\n" for record in records)
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        write_all(fd, b"\n" + data if _ends_torn(fd) else data)
    finally:
        os.close(fd)


def _ends_torn(fd: int) -> bool:
    """Whether a kill or a full disk cut the last line, which must not take the next one with it."""
    for _ in range(5):
        size = os.fstat(fd).st_size
        if not size or os.pread(fd, 1, size - 1) == b"\n":
            return False
        time.sleep(0.001)  # or another process is in the midst of its line
    return True


class JsonLines(Generic[Record]):
    """The records of a file that grows; `refresh` parses only what is new.

    A last line without its end is left for later. Lines that are no JSON object, or that `parse`
    rejects with one of Python's errors of value, key or type, are counted in `damaged`.
    """

    def __init__(self, path: Path, parse: Callable[[dict[str, Any]], Record]) -> None:
        self.path = path
        self.records: list[Record] = []
        self.damaged = 0
        self._parse = parse
        self._end = 0

    def refresh(self) -> None:
        """Raises OSError, but not where the file is yet to come."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._end)
                new = file.read()
        except FileNotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._end += len(whole)
        for line in whole.split(b"\n"):
            if line.strip():
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            self.records.append(self._parse(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            self.damaged += 1

    @property
    def note(self) -> str:
        """What could not be read, empty where all could."""
        return f"{self.path.name}: {self.damaged} damaged line(s) were left out" if self.damaged else ""
