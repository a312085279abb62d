"""Lines on a terminal: wrapped under their label, in the characters that the stream can say."""

from __future__ import annotations

import os
import unicodedata
from typing import TextIO

from rich.console import Console
from rich.text import Text

FIXED = ("COLUMNS", "LINES")
"""What of the environment would fix the size."""

LONGEST = 2000
"""Characters of a line that says something of a run: a path has room in it."""

SPOKEN = {"×": "x", "·": "-", "…": "...", "→": "->", "≥": ">=", "≤": "<=", "–": "-", "—": "-"}


def console_for(stream: TextIO, *, fluid: bool = False) -> Console:
    """A console that writes plain text where `stream` is no terminal or NO_COLOR is set.

    It is 100 columns wide at most; a `fluid` one is always as large as the terminal is now.
    """
    plain = not stream.isatty() or bool(os.environ.get("NO_COLOR"))
    console = Console(
        file=stream,
        color_system=None if plain else "auto",
        force_jupyter=False,
        highlight=False,
        markup=False,
        emoji=False,
        width=80 if not stream.isatty() else None,
        _environ={k: v for k, v in os.environ.items() if k not in FIXED} if fluid else None,
    )
    if not fluid:
        console.width = min(console.width, 100)
    return console


def shortened(line: str) -> str:
    """`line`, without the middle of one that is longer than anybody reads."""
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[:half]} … {line[-half:]}"


def speakable(text: str, encoding: str) -> str:
    """`text` on one line, without control characters, and within `encoding`."""
    shown = "".join(c if c == " " or unicodedata.category(c)[0] != "C" else _escaped(c) for c in text)
    try:
        shown.encode(encoding)
    except UnicodeEncodeError:
        simpler = "".join(SPOKEN.get(c, c) for c in shown)
        return simpler.encode(encoding, "backslashreplace").decode(encoding)
    return shown


def _escaped(control: str) -> str:
    return " " if control.isspace() else control.encode("unicode_escape").decode("ascii")


class Lines:
    """Writes to `console`, line by line."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @property
    def says_unicode(self) -> bool:
        return speakable("▁×", self.console.encoding) == "▁×"

    def blank(self) -> None:
        self.console.print()

    def item(
        self,
        label: str,
        text: str,
        *,
        indent: int = 0,
        column: int = 0,
        style: str = "",
        label_style: str = "dim",
    ) -> None:
        """`text`, its first line after `label`, all of it from `column` on."""
        encoding = self.console.encoding
        start = max(column, indent)
        body = Text(speakable(shortened(text), encoding), style=style)
        head = Text(" " * indent + label, style=label_style)
        for line in body.wrap(self.console, max(self.console.width - start, 20)) or [Text()]:
            line.rstrip()
            head.pad_right(max(start - head.cell_len, 0))
            self.console.print(head + line, soft_wrap=True)
            head = Text()

    def verbatim(self, text: str, *, indent: int) -> None:
        """Code or a command: its own line breaks, never wrapped."""
        for line in text.splitlines():
            shown = speakable(shortened(line).expandtabs(4), self.console.encoding)
            self.console.print(Text(" " * indent + shown, style="cyan"), soft_wrap=True)
