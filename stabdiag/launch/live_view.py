"""Shows what an onlooker sees: on the whole of a terminal, or in plain lines where there is none."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from stabdiag.core.finding import Severity
from stabdiag.launch.onlooker import Onlooker
from stabdiag.render.dashboard import Dashboard
from stabdiag.render.live import frame, line_of
from stabdiag.render.look import Look

REDRAW = 0.5
"""Seconds between two frames, at least."""

TELL = 10.0
"""Seconds between two plain lines, at least."""

PLAIN_HEIGHT = 40


def show(onlooker: Onlooker, dashboard: Dashboard, console: Console) -> None:
    """Until the run has ended. The terminal is then, and whatever comes between, as it was before."""
    if not onlooker.over.wait(REDRAW):
        screen = Live(
            console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        with _restored(), screen:
            while not onlooker.over.is_set():
                lines = _frame(onlooker.latest, dashboard, console, console.height)
                screen.update(Group(*lines), refresh=True)
                onlooker.over.wait(REDRAW)
    if onlooker.failure is None:
        show_once(onlooker.latest, dashboard, console)


def show_once(look: Look, dashboard: Dashboard, console: Console) -> None:
    height = console.height - 1 if console.is_terminal else PLAIN_HEIGHT
    for text in _frame(look, dashboard, console, height):
        console.print(text, soft_wrap=True)


def _frame(look: Look, dashboard: Dashboard, console: Console, height: int) -> list[Text]:
    return frame(look, dashboard, console.width, height, console.encoding)


def tell(onlooker: Onlooker, dashboard: Dashboard, console: Console) -> None:
    """A line now and then and for each finding, and the last frame when the run has ended."""
    told: set[str] = set()
    said, steps = 0.0, -1
    while not onlooker.over.wait(REDRAW):
        look = onlooker.latest
        for finding in look.diagnosis.findings if look.diagnosis else ():
            if finding.severity > Severity.info and finding.signature not in told:
                told.add(finding.signature)
                console.print(line_of(look, console.encoding, finding), soft_wrap=True)
        if look.run.steps != steps and time.monotonic() - said > TELL:
            said, steps = time.monotonic(), look.run.steps
            console.print(line_of(look, console.encoding), soft_wrap=True)
    if onlooker.failure is None:
        show_once(onlooker.latest, dashboard, console)


@contextmanager
def _restored() -> Iterator[None]:
    """Signals that end the process do so by way of what restores the terminal."""

    def leave(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    ends = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, leave) for number in ends}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
