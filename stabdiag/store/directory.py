"""Run directories: made without ever overwriting one, and found again."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from stabdiag.core.errors import DamagedRun, StabdiagError

DEFAULT = Path("stabdiag-runs")
LATEST = "latest"
PAGE = "report.html"
BOARD = "tensorboard"
FIRST_RUN = "`stabdiag run train.py` makes one"


def create_run_directory(log_dir: Path, name: str, *, exact: bool = False) -> Path:
    """Makes `log_dir/<name>-<YYYYMMDD-HHMMSS>[-n]`, `exact`: `log_dir/<name>`, and points `latest` to it.

    Raises StabdiagError where that cannot be, or where the exact one exists.
    """
    if exact and (name in ("", ".", "..", LATEST) or Path(name).name != name):
        raise StabdiagError(f"a run cannot be called {name!r}", "take a plain name, such as warmup-2k")
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        run_dir = _make(log_dir, [name] if exact else _dated(name))
    except OSError as error:
        raise StabdiagError(
            f"no run directory can be made in {log_dir}: {error.strerror}", "--log-dir takes another folder"
        ) from error
    if run_dir is None:
        raise StabdiagError(f"there is a run {log_dir / name} already", "take another --name, or remove it")
    try:
        _point(log_dir / LATEST, run_dir.name)
    except OSError as error:
        with contextlib.suppress(OSError):
            run_dir.rmdir()
        raise StabdiagError(
            f"{log_dir / LATEST} cannot be pointed to a new run: {error.strerror}",
            "--log-dir takes another folder",
        ) from error
    return run_dir


def _dated(name: str) -> Iterator[str]:
    plain = re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:100] or "run"
    stem = f"{plain}-{time.strftime('%Y%m%d-%H%M%S')}"
    return (f"{stem}-{number}" if number else stem for number in count())


def _make(log_dir: Path, names: Iterable[str]) -> Path | None:
    """The first of `names` that nobody has made, now made: exclusive, whoever else tries meanwhile."""
    for name in names:
        with contextlib.suppress(FileExistsError):
            (log_dir / name).mkdir()
            return log_dir / name
    return None


def _point(pointer: Path, name: str) -> None:
    """A relative symlink, replaced atomically; a file that holds the name where links are impossible."""
    temporary = pointer.with_name(f".{pointer.name}.{name}")  # no two runs share a name
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(name)
    except OSError:
        temporary.write_text(name + "\n")
    try:
        temporary.replace(pointer)
    except OSError:
        temporary.unlink()
        raise


def _pointed(pointer: Path) -> Path | None:
    """The run that a `latest` points to, under its own name."""
    try:
        name = str(pointer.readlink()) if pointer.is_symlink() else pointer.read_text().strip()
    except (OSError, ValueError):
        return None
    run_dir = pointer.parent / name
    return run_dir if name and is_run(run_dir) else None


def is_run(path: Path) -> bool:
    """Whether `path` is a directory that holds any of a run's files."""
    names = ("run.json", "events.jsonl", "sites.jsonl")
    return path.is_dir() and (any((path / name).is_file() for name in names) or bool(ranks(path)))


def ranks(run_dir: Path) -> tuple[int, ...]:
    """The recorded ranks, ascending."""
    found = (re.fullmatch(r"rank-(\d+)", path.name) for path in run_dir.glob("rank-*"))
    return tuple(sorted(int(match[1]) for match in found if match))


def resolve_run(path: Path | None = None) -> Path:
    """The run directory that is meant, `path` itself or the latest in the folder `path`; or another tool's
    log, which lies at or below it.

    None is the latest of `stabdiag-runs`. Raises DamagedRun where there is none, StabdiagError where it holds
    several logs of another tool.
    """
    folder = DEFAULT if path is None else path
    try:
        if folder.name == LATEST and (run_dir := _pointed(folder)):
            return run_dir
        if is_run(folder):
            return folder
        run_dir = _newest(folder) if folder.is_dir() else None
        found = run_dir or (_log_of(folder) if path is not None and folder.exists() else None)
    except OSError as error:
        raise DamagedRun(f"{folder} cannot be read: {error.strerror}") from error
    if found is not None:
        return found
    raise _nothing(path, folder)


def _log_of(path: Path) -> Path | None:
    from stabdiag.store.foreign import find

    found = find(path)
    return found and found.path


def _nothing(path: Path | None, folder: Path) -> DamagedRun:
    from stabdiag.store.foreign import formats

    if folder.is_file():
        return DamagedRun(f"{folder} is a file, not a run directory", formats())
    if folder.is_dir():
        return DamagedRun(f"there are no runs in {folder}", f"{FIRST_RUN}; {formats()}")
    return DamagedRun("no runs here yet" if path is None else f"there is no {folder}", FIRST_RUN)


def _newest(folder: Path) -> Path | None:
    if run_dir := _pointed(folder / LATEST):
        return run_dir
    runs = [child for child in folder.iterdir() if child.name != LATEST and is_run(child)]
    return max(runs, key=lambda run: run.stat().st_mtime, default=None)


def page_of(path: Path | None) -> Path:
    """Where the report of a run goes: into its directory; of another tool's log into the working directory,
    since its folder is not ours."""
    if path is None or is_run(path):
        return (path or Path()) / PAGE
    return Path(f"{beside(path)}.html")


def board_of(path: Path | None) -> Path:
    """The folder in which TensorBoard finds a run."""
    if path is None or is_run(path):
        return (path or Path()) / BOARD
    return Path(f"{beside(path)}-{BOARD}")


def beside(path: Path) -> str:
    """A name for what is made of another tool's log, by its own and that of the folder around it."""
    whole = path.resolve()
    name = whole.stem if whole.is_file() else whole.name
    words = re.sub(r"[^\w.+-]+", "-", f"{whole.parent.name}-{name}").strip("-.")
    return f"stabdiag-{words[:100] or 'log'}"
