"""Signals that have to wait."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def no_interruptions() -> Iterator[None]:
    """Signals that the script handles in Python are handled at the end: a handler that writes a checkpoint
    must not find the model as the recorder has changed it for a moment. Others act at once, as always."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handlers = {s: handler for s in signal.valid_signals() if callable(handler := signal.getsignal(s))}
    try:
        for number in handlers:
            signal.signal(number, lambda number, _frame: arrived.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for caught in arrived:
            signal.raise_signal(caught)


def before_termination(act: Callable[[], None]) -> None:
    """Calls `act` when SIGTERM comes, where that would end the process at once; it ends by it all the same.
    A handler that the script sets takes the place of this one."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    own = os.getpid()

    def terminate(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() == own:  # forks have the handler, and nothing to write
            act()
        signal.raise_signal(number)

    signal.signal(signal.SIGTERM, terminate)
