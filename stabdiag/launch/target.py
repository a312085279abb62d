"""What TARGET means: the program to execute, its arguments, and a name for the run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stabdiag.core.errors import StabdiagError

PYTHON_FILES = (".py", ".pyw")


@dataclass(frozen=True, slots=True)
class Target:
    """`words` is what the user typed, `arguments` the argv of the process, its name included."""

    words: tuple[str, ...]
    program: str
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """The script's or module's name, wherever in the command it stands, else the program's."""
        first, *rest = self.words
        if first.startswith("-c"):
            return "code"
        if first.startswith("-m"):
            module = first[2:] or "".join(rest[:1])
            return module.rpartition(".")[2]
        scripts = (word for word in self.words if word.endswith(PYTHON_FILES))
        return Path(next(scripts, first)).stem


def resolve_target(words: Sequence[str]) -> Target:
    """A script, `-m module`, `-c code`, an executable file, or a program on PATH, with its arguments.

    StabdiagError where there is no such thing, before anything was made.
    """
    typed = tuple(words)
    first = typed[0]
    if first.startswith(("-m", "-c")):
        if len(first) == 2 and len(typed) == 1:
            raise StabdiagError(f"{first} needs a {'module' if first == '-m' else 'line of code'} after it")
        return _python(typed)
    path = Path(first)
    if path.is_file():
        return _file(typed, path)
    if path.is_dir():
        if (path / "__main__.py").is_file():
            return _python(typed)
        raise StabdiagError(f"{first} is a directory", "give the script in it, or -m module")
    program = shutil.which(first)
    if program is None:
        raise StabdiagError(f"there is no {first}, neither as a file nor on PATH", _nearest(path))
    return Target(typed, program, typed)


def _python(typed: tuple[str, ...]) -> Target:
    return Target(typed, sys.executable, (sys.executable, *typed))


def _file(typed: tuple[str, ...], path: Path) -> Target:
    if not os.access(path, os.R_OK) and not os.access(path, os.X_OK):
        raise StabdiagError(f"{path} cannot be read: permission denied", f"try: chmod +r {path}")
    if path.suffix in PYTHON_FILES or not os.access(path, os.X_OK):
        return _python(typed)
    return Target(typed, str(path.absolute()), typed)


def _nearest(path: Path) -> str:
    script = path.with_name(path.name + ".py")
    if path.name and script.is_file():
        return f"did you mean {script}?"
    return "TARGET is a script, -m module, -c code, or a program on PATH"
