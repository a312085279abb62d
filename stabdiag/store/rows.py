"""Tables of metrics: which column counts the steps, which tells the time, and what is a number in them."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from stabdiag.store.importer import LARGEST_STEP, Log

COUNTERS = (
    "global_step", "step", "steps", "iteration", "iterations", "iter", "num_updates", "update", "updates",
    "current_steps", "it", "_step", "batch", "epoch",
)  # fmt: skip
"""What counts steps, the best first, alone or after a slash: wandb's `_step` counts calls, not steps."""
OF_TRAINER = {"train/global_step", "train/epoch"}
"""What Hugging Face's Trainer sends to wandb and its like with all numbers; it counts steps that are done."""
CLOCKS = ("_timestamp", "timestamp", "wall_time", "wall time", "time", "_runtime", "runtime")
OFTEN = 0.9
"""Share of the rows that a counter has to be in."""
HEADS = 1000
"""Rows that tell what the others hold."""
HEAD = 1 << 16
"""Characters that tell what a file holds."""
DEEPEST = 16
LONG = ("metric", "name", "key", "tag")
"""In tables of one number a row, beside its `value`, what says which number it is."""


def head(path: Path) -> str:
    """The beginning of a file that may be anything: empty of what is no plain file, or may not be read."""
    try:
        if not path.is_file():
            return ""
        with path.open(encoding=encoding_of(path), errors="replace") as file:
            return file.read(HEAD)
    except OSError:
        return ""


def encoding_of(path: Path) -> str:
    """UTF-16 where the file begins with its mark, as spreadsheets write it, else UTF-8. Raises OSError."""
    with path.open("rb") as file:
        marked = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return "utf-16" if marked else "utf-8-sig"


def add_rows(log: Log, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds the numbers of `rows`, each at its own step, or that of the row before."""
    flattened = [flat(row) for row in rows]
    counter = _counter(flattened)
    clock = next((c for c in CLOCKS if any(c in row for row in flattened[:1])), None)
    step = 0.0
    for index, row in enumerate(flattened):
        found = number(row.get(counter)) if counter else float(index)
        step = found if found is not None and math.isfinite(found) else step
        time = number(row.get(clock)) if clock else None
        for name, value in _named(row):
            measured = None if keeps_books(name) else number(value)
            if measured is not None:
                log.add(name, step, measured, math.nan if time is None else time)
    if flattened and counter is None:
        log.notes.append("nothing in it counts steps: its rows are counted instead")
    elif all(any(name in row for row in flattened[:HEADS]) for name in OF_TRAINER):
        log.count_from_zero()
    elif counter and _plain(counter) == "epoch":
        log.notes.append("it counts epochs, no steps: read a step as an epoch")


def _counter(rows: Sequence[Mapping[str, Any]]) -> str | None:
    sample = [row for row in rows[:HEADS] if any(number(value) is not None for value in row.values())]
    names = dict.fromkeys(name for row in sample for name in row)
    for word in COUNTERS:
        for name in names:
            if _plain(name) == word and _counts([number(row.get(name)) for row in sample]):
                return name
    return None


def _counts(values: Sequence[float | None]) -> bool:
    """Whether these are whole numbers, in most rows."""
    whole = sum(v is not None and 0 <= v < LARGEST_STEP and v == int(v) for v in values)
    return whole > 0 and whole >= OFTEN * len(values)


@cache
def keeps_books(name: str) -> bool:
    """Whether a number of that name only says where in the training the others were taken."""
    return _plain(name) in (*COUNTERS, *CLOCKS)


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower().rpartition("/")[2])


def _named(row: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    if "value" in row:
        for key in LONG:
            if isinstance(row.get(key), str):
                return [(row[key], row["value"])]
    return row.items()


def number(value: Any) -> float | None:
    """A number, or one that is spelled out: `nan`, `-inf`, `1e-3`. None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        if isinstance(value, str):
            return (
                float(value)
                if re.fullmatch(r"\s*[+-]?(\d|\.\d|nan|inf).*", value[:64], re.IGNORECASE)
                else None
            )
        return float(value) if isinstance(value, int | float) else None
    except (ValueError, OverflowError):
        return None


def flat(row: Mapping[str, Any], prefix: str = "", deep: int = 0) -> dict[str, Any]:
    """Nested objects with their names joined by a slash. Lists, and what is nested beyond DEEPEST, are no
    numbers and are left out."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/", deep + 1) if deep < DEEPEST else {}
        elif isinstance(name, str) and not isinstance(value, list):
            found[prefix + name] = value
    return found
