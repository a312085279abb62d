"""Signals that have to wait."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


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
