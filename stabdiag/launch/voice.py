"""Lines of ours among the target's own output: on stderr, with a prefix, never an error.

What a run calls its layers is in them: no control character of that reaches the terminal.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Voice:
    """`quiet` silences `say`, but not `complain`."""

    quiet: bool = False

    def say(self, line: str) -> None:
        if not self.quiet:
            self.complain(line)

    def complain(self, line: str) -> None:
        from stabdiag.render.terminal import shortened, speakable

        # A terminal that was closed, or a pipe that nobody reads, must not end the supervisor.
        with contextlib.suppress(OSError, ValueError):
            shown = speakable(shortened(line), sys.stderr.encoding)
            print(f"stabdiag: {shown}", file=sys.stderr, flush=True)
