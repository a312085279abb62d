"""The ranges of a step's modules as a table of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from stabdiag.render.numbers import count, number
from stabdiag.render.terminal import speakable

TITLES = {
    "forward": "Forward: what each module gave, in the order in which they ended",
    "backward": "Backward: the gradients that their outputs got, in the order of arrival",
}


class Range(Protocol):
    """`low`, `high` and `rms` are of the finite values."""

    direction: str
    module: str
    low: float
    high: float
    finite: int
    nonfinite: int

    @property
    def rms(self) -> float: ...


def print_ranges(ranges: Sequence[Range], console: Console) -> None:
    """One table a direction; the first module with a value that is not finite is marked."""
    first = next((row for row in ranges if row.nonfinite), None)
    for direction, rows in groupby(ranges, lambda row: row.direction):
        console.print(TITLES[direction], style="bold")
        table = Table(box=SIMPLE_HEAD, width=min(console.width, 80), padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("module", ratio=1, overflow="fold")
        for heading in ("min", "max", "rms"):
            table.add_column(heading, justify="right", width=9, no_wrap=True)
        table.add_column("not finite", justify="right", width=18)
        for row in rows:
            _add(table, row, row is first, console.encoding)
        console.print(table)


def _add(table: Table, row: Range, first: bool, encoding: str) -> None:
    values = [number(v) if row.finite else "-" for v in (row.low, row.high, row.rms)]
    bad = f"{count(row.nonfinite)}{'  FIRST' if first else ''}" if row.nonfinite else ""
    style = "bold red" if first else "red" if row.nonfinite else ""
    table.add_row(speakable(row.module, encoding), *values, bad, style=style)
