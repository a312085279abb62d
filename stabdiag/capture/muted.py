"""Silence of the thread that the recorder runs the script's code in."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from stabdiag.capture.patch import Patch


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Drops what is printed, logged and warned of; what other threads of the script say goes through.

    `warnings.catch_warnings` would not do: it makes Python forget which warnings were shown already.
    """
    ours = threading.get_ident()

    def dropped() -> bool:
        ident = threading.get_ident()
        # Threads that Python did not start are those in which autograd runs the backward pass.
        return ident == ours or all(t.ident != ident for t in threading.enumerate())

    def unless_dropped(owner: Any, name: str) -> Patch:
        def through(*args: Any) -> None:
            if not dropped():
                patch.original(*args)

        patch = Patch(owner, name, through)
        return patch

    patches = [unless_dropped(logging.Logger, "handle"), unless_dropped(warnings, "_showwarnmsg")]
    try:
        with contextlib.ExitStack() as streams:
            for name in ("stdout", "stderr"):
                redirect = getattr(contextlib, f"redirect_{name}")
                streams.enter_context(redirect(_Stream(name, dropped)))
            yield
    finally:
        for patch in patches:
            patch.remove()


class _Stream:
    """Stands in for `sys.stdout` or `sys.stderr`."""

    def __init__(self, name: str, dropped: Callable[[], bool]) -> None:
        self._stream = getattr(sys, name)
        self._dropped = dropped

    def write(self, text: str) -> int:
        return len(text) if self._dropped() else int(self._stream.write(text))

    def writelines(self, lines: Any) -> None:
        if not self._dropped():
            self._stream.writelines(lines)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
