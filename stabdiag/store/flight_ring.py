"""The ring of a flight record, as the process writes it that records; `store.flight` describes the file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stabdiag.store.files import replace, write_all
from stabdiag.store.flight import ABOUT, OF_INPUTS, SCHEMA, SLOTS, STEPS, Rows, in_order


def blank_rows(kind: np.dtype[np.void]) -> Rows:
    """A ring of rows that hold nothing."""
    rows = np.zeros(SLOTS, kind)
    for name in kind.names or ():
        base = kind[name].base
        if base.kind == "f":
            rows[name] = np.nan
        elif base == np.int64:
            rows[name] = -1
    return rows


class Ring:
    """The last rows, in memory and in a file. Adding one raises nothing: a full disk only lacks it."""

    def __init__(
        self,
        folder: Path,
        kind: np.dtype[np.void],
        parameters: Sequence[str],
        inputs: Sequence[str],
        facts: Mapping[str, Any],
    ) -> None:
        self.parameters = tuple(parameters)
        self.inputs = tuple(inputs)
        self.rows = blank_rows(kind)
        self._facts = facts
        self._blank = self.rows[0].copy()
        self._fields = {name: self.rows[name] for name in kind.names or ()}
        self._bytes = self.rows.view(np.uint8).data
        self._size = self.rows.itemsize
        self._head = 0
        self._file = self._opened(folder)

    def _opened(self, folder: Path) -> BinaryIO | None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                file = stack.enter_context((folder / STEPS).open("w+b", buffering=0))
                self._head = write_rows(file, self.rows)
                self._write_about(folder, {})
                stack.pop_all()
                return file
        except OSError:
            return None

    def _write_about(self, folder: Path, more: Mapping[str, Any]) -> None:
        named = {"schema": SCHEMA, "parameters": self.parameters, "inputs": self.inputs}
        replace(folder / ABOUT, {**named, **self._facts, **more})

    def fits(self, parameters: Sequence[str], inputs: Mapping[str, float], cuda: Any) -> bool:
        """Whether these have a place in it; `cuda` is the states of devices, None where not known."""
        same = self.parameters is parameters or self.parameters == parameters
        known = same and all(name in self.inputs for name in inputs)
        return known and (cuda is None or cuda.shape == self._fields["cuda"].shape[1:])

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Fields that are left out are blank; those of inputs are given by name."""
        place = step % SLOTS
        self.rows[place] = self._blank
        fields = self._fields
        for name, value in values.items():
            if name in OF_INPUTS:
                value = [value.get(i, np.nan) for i in self.inputs]
            fields[name][place] = value
        fields["step"][place] = fields["check"][place] = step
        self._write(place)

    def _write(self, place: int) -> None:
        if self._file is not None:
            size = self._size
            at = place * size
            with contextlib.suppress(OSError):
                os.pwrite(self._file.fileno(), self._bytes[at : at + size], self._head + at)

    def take_over(self, older: Ring) -> None:
        """The rows of a ring for other parameters, inputs or devices, as far as both have a place."""
        for name, now in self._fields.items():
            before = older._fields[name]
            if name == "grad":
                _move(older.parameters, before, self.parameters, now)
            elif name in OF_INPUTS:
                _move(older.inputs, before, self.inputs, now)
            elif before.shape == now.shape:
                now[...] = before
        for place in range(SLOTS):
            self._write(place)

    def span(self) -> tuple[int, int]:
        """The first and the last step that are in it."""
        steps = in_order(self.rows)["step"]
        return int(steps[0]), int(steps[-1])

    def save(self, folder: Path, step: int, because: str, random: Mapping[str, Any]) -> None:
        """Writes the record of what happened at `step`. Raises OSError.

        `random` are the states of Python and numpy now: where they were not kept, but are the same before
        and after, nothing was drawn in between.
        """
        rows = in_order(self.rows)
        for name in ("python", "numpy"):
            _fill(rows, name, random)
        with (folder / STEPS).open("w+b", buffering=0) as file:
            write_rows(file, rows)
        self._write_about(folder, {"step": step, "because": because})

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _move(names: Sequence[str], values: Rows, to: Sequence[str], target: Rows) -> None:
    places = {name: i for i, name in enumerate(names)}
    for i, name in enumerate(to):
        if name in places:
            target[:, i] = values[:, places[name]]


def _fill(rows: Rows, name: str, now: Mapping[str, Any]) -> None:
    """`rows` are in order; `now` is the state after them."""
    state, gauss = rows[name], rows[f"{name}_gauss"]
    kept = np.flatnonzero(state.any(axis=1))
    for first, last in pairwise([*kept.tolist(), len(rows)]):
        known = last < len(rows)
        then = (state[last], gauss[last]) if known else (now.get(name, 0), now.get(f"{name}_gauss", 0))
        if np.array_equal(state[first], then[0]) and np.array_equal(gauss[first], then[1], equal_nan=True):
            state[first:last], gauss[first:last] = state[first], gauss[first]


def write_rows(file: BinaryIO, rows: Rows) -> int:
    """Where in the file the rows begin. Raises OSError."""
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(rows))
    head = file.tell()
    write_all(file.fileno(), rows.tobytes())
    return head
