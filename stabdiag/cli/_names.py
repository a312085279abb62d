"""What a word on the command line names, and what a shell completes it to.

Nothing that has the name is loaded for that: entries of a catalogue are files of one folder, and are called
like them.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

PACKAGE = Path(__file__).parents[1]
SIGNATURES = "analysis/signatures"
CATALOGUES = (SIGNATURES, "analysis/causes", "analysis/fixes", "intervene/interventions")


def entries(folder: str) -> list[str]:
    """The ids of a catalogue, from the files of the package's folder in which it is."""
    files = (PACKAGE / folder).glob("[!_]*.py")
    return sorted(path.stem.replace("_", "-") for path in files)


def thresholds(signature: str) -> list[str]:
    """The keyword-only parameters of its detector; none where there is no such signature."""
    if signature not in entries(SIGNATURES):
        return []
    path = PACKAGE / SIGNATURES / f"{signature.replace('-', '_')}.py"
    functions = (node for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.FunctionDef))
    return [a.arg for f in functions if f.decorator_list for a in f.args.kwonlyargs]


def dashboards() -> list[str]:
    """Those that come with stabdiag: in the package, and beside it where that is not installed."""
    folders = (PACKAGE / "dashboards", PACKAGE.parent / "dashboards")
    return sorted({path.stem for folder in folders for path in folder.glob("*.toml")})


def offered(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Those that go on from what is typed. A shell puts them on the command line as they are: a word that
    would mean something to it is not offered."""
    return [CompletionItem(w) for w in words if w.startswith(incomplete) and shlex.quote(w) == w]


class EntryName(click.types.StringParamType):
    """An entry of the catalogues in these folders."""

    def __init__(self, *folders: str) -> None:
        self._folders = folders

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return offered(dict.fromkeys(id for folder in self._folders for id in entries(folder)), incomplete)


class Setting(click.types.StringParamType):
    """`SIGNATURE.THRESHOLD=VALUE`."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        signature, dot, _ = incomplete.partition(".")
        found = [signature] if dot else [id for id in entries(SIGNATURES) if id.startswith(signature)]
        if len(found) > 1:
            return offered((f"{id}." for id in found), incomplete)
        return offered((f"{id}.{name}=" for id in found for name in thresholds(id)), incomplete)


class RunPath(click.Path):
    """A run directory; where none goes on from what is typed, whatever path the shell completes it to."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return offered(_runs(incomplete), incomplete) or [CompletionItem(incomplete, type="file")]


def _runs(incomplete: str) -> Iterator[str]:
    """The runs of the usual folder, the latest first."""
    from stabdiag.store.directory import DEFAULT, is_run

    try:
        found = [path for path in DEFAULT.iterdir() if str(path).startswith(incomplete) and is_run(path)]
        yield from map(str, sorted(found, key=lambda path: path.lstat().st_mtime, reverse=True))
    except OSError:  # there is none, or it goes away meanwhile
        return


class DashboardName(click.types.StringParamType):
    """A dashboard that comes with stabdiag, or a TOML file."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return offered(dashboards(), incomplete) or [CompletionItem(incomplete, type="file")]
