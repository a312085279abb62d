"""The secrets of a recorded command, given once more: a run directory holds none."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from dataclasses import replace

from stabdiag.core.errors import StabdiagError
from stabdiag.core.redaction import REDACTED
from stabdiag.core.run import RunInfo
from stabdiag.render.terminal import speakable


def given_again(info: RunInfo, ask: Callable[[str], str] | None = None) -> RunInfo:
    """With each secret of the command in its place, as `ask` answers for the words around it.

    By default that is the terminal, where nothing is shown, or a line each of standard input. StabdiagError
    where there is no answer.
    """
    ask = ask or _asked
    words: list[str] = []
    for before, word in zip(("", *info.command), info.command, strict=False):
        first, *others = word.split(REDACTED)
        around = f"{before} {word}" if word == REDACTED else word
        words.append(first + "".join(ask(around) + other for other in others))
    return replace(info, command=tuple(words))


def _asked(around: str) -> str:
    shown = speakable(around, sys.stderr.encoding)
    if sys.stdin.isatty():
        answer = getpass.getpass(f"stabdiag: {shown} was recorded without the secret, which is: ")
    else:
        answer = sys.stdin.readline().rstrip("\r\n")
    if not answer:
        raise StabdiagError(
            f"the command of this run held a secret, which was not recorded: {shown}",
            "give it again at a terminal, or on standard input, a line each: stabdiag verify RUN < FILE",
        )
    return answer
