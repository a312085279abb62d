"""Where what a command produces goes."""

from __future__ import annotations

import sys
from pathlib import Path

from stabdiag.core.errors import StabdiagError


def write(text: str, path: Path | None, option: str = "--output") -> None:
    """To the file, or to stdout. StabdiagError where it cannot be written; `option` named it."""
    if path is None:
        sys.stdout.write(text)
        return
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StabdiagError(f"cannot write {path}: {error.strerror}", f"give another {option}") from error
