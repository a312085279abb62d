"""A comparison on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from stabdiag.core.comparison import Comparison, OnlyOne
from stabdiag.core.run import Run
from stabdiag.render.comparison import words
from stabdiag.render.curve import loss_curve
from stabdiag.render.numbers import count
from stabdiag.render.sparkline import sparkline
from stabdiag.render.terminal import Lines

COLUMN = 13
STYLE = {"identical": "bold green", "same": "bold green", "part": "bold yellow"}
PARTINGS, LEVELS = 12, 6


def render_text(a: Run, b: Run, told: Comparison, console: Console) -> None:
    """Writes the comparison to `console`."""
    lines = Lines(console)
    lines.item("", words.verdict_sentence(told), style=STYLE.get(told.verdict, "bold blue"))
    lines.blank()
    for name, path, steps in (("A", told.a, told.steps[0]), ("B", told.b, told.steps[1])):
        lines.item(name, f"{path}, {count(steps, 'step')}", indent=2, column=COLUMN)
    lines.item("identical", words.identical(told), indent=2, column=COLUMN)
    if words.first_bit(told):
        lines.item("first bit", words.first_bit(told), indent=2, column=COLUMN)
    for name, run in (("loss A", a), ("loss B", b)):
        room = max(min(lines.console.width - COLUMN, 60) * run.steps // max(told.steps), 1)
        drawn = sparkline(loss_curve(run), room, ascii_only=not lines.says_unicode)
        lines.item(name, drawn or "not recorded", indent=2, column=COLUMN)
    _partings(lines, told)
    _levels(lines, told)
    _settings(lines, told)
    for name, only in (("A", told.only_a), ("B", told.only_b)):
        _only(lines, name, only)
    _section(lines, "What limits the comparison", told.notes)
    lines.blank()
    for command in words.next_commands(told):
        lines.item("next", command, indent=2, column=COLUMN, style="cyan")


def _partings(lines: Lines, told: Comparison) -> None:
    if told.first is None or told.verdict == "unpaired":
        return
    _heading(lines, "Where they part, in order")
    last = min(told.steps) - 1
    for parting in (told.first, *told.followed)[:PARTINGS]:
        extent = words.extent(parting, last)
        text = words.what_parted(parting) + (f"; {extent}" if extent else "")
        lines.item(words.at_step(parting), text, indent=2, column=COLUMN)
    more = len(told.followed) + 1 - PARTINGS
    if more > 0:
        lines.item("", f"and {count(more)} more series", indent=2, column=COLUMN)


def _levels(lines: Lines, told: Comparison) -> None:
    if told.verdict == "identical" or not told.levels:
        return
    _heading(lines, "Where they settle, over the last half of the steps")
    for level in told.levels[:LEVELS]:
        lines.item("", f"{words.level_place(level)}: {words.level_words(level)}", indent=2)
    if len(told.levels) > LEVELS:
        lines.item("", f"and {count(len(told.levels) - LEVELS)} more on the page", indent=2)


def _settings(lines: Lines, told: Comparison) -> None:
    if told.settings:
        _heading(lines, "What is not the same of both")
    for difference in told.settings:
        a, b = words.sides(difference)
        if len(difference.what) + len(a) + len(b) < lines.console.width - 20:
            lines.item("", f"{difference.what}: {a} in A, {b} in B", indent=2)
            continue
        lines.item("", difference.what, indent=2)
        for name, said in (("A", a), ("B", b)):
            lines.item(name, said, indent=4, column=7)


def _only(lines: Lines, name: str, only: OnlyOne) -> None:
    findings = [words.finding_words(finding) for finding in only.findings]
    _section(lines, f"Only in {name}", [*findings, *(f"{kind}: {names}" for kind, names in words.only(only))])


def _section(lines: Lines, title: str, items: Iterable[str]) -> None:
    items = list(items)
    if items:
        _heading(lines, title)
    for item in items:
        lines.item("", item, indent=2)


def _heading(lines: Lines, text: str) -> None:
    lines.blank()
    lines.item("", text, style="bold")
