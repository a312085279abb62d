"""What several commands take: the run to read, and what the analysis selects, ignores and tunes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stabdiag.cli._names import SIGNATURES, DashboardName, EntryName, RunPath, Setting

if TYPE_CHECKING:
    from stabdiag.core.config import Configuration
    from stabdiag.core.run import Run

Function = TypeVar("Function", bound=Callable[..., Any])

RUN = RunPath()

set_option = click.option(
    "--set",
    "settings",
    type=Setting(),
    multiple=True,
    metavar="SIGNATURE.THRESHOLD=VALUE",
    help="A threshold of the analysis; may be repeated.",
)


metrics_option = click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve the run's numbers to Prometheus, on this machine only; 0: any free port.",
)


map_option = click.option(
    "--map",
    "names",
    multiple=True,
    metavar="THEIRS=OURS",
    help="What a number in another tool's log is, such as cost=run.loss; may be repeated.",
)


def read_run(path: Path | None, names: tuple[str, ...] = ()) -> Run:
    """The run that is meant, of another tool's log with its numbers mapped by `--map`. StabdiagError where
    there is none."""
    from stabdiag.store.directory import resolve_run
    from stabdiag.store.naming import parse_names
    from stabdiag.store.reader import load

    return load(resolve_run(path), names=parse_names(names))


def dashboard_option(help: str) -> Callable[[Function], Function]:
    return click.option(
        "--dashboard",
        type=DashboardName(),
        default="health",
        show_default=True,
        metavar="NAME|FILE.toml",
        help=help,
    )


def selection_options(function: Function) -> Function:
    """`--select`, `--ignore` and `--set`."""
    function = set_option(function)
    function = click.option(
        "--ignore",
        type=EntryName(SIGNATURES),
        multiple=True,
        metavar="SIGNATURE[@SITE]",
        help="Not these; may be repeated.",
    )(function)
    return click.option(
        "--select",
        type=EntryName(SIGNATURES),
        multiple=True,
        metavar="SIGNATURE",
        help="Only these signatures; may be repeated.",
    )(function)


def configuration(
    settings: tuple[str, ...], select: tuple[str, ...] = (), ignore: tuple[str, ...] = ()
) -> Configuration:
    """That of pyproject.toml with the options on top. StabdiagError for a name that nothing has."""
    from stabdiag.core.config import Configuration, load_configuration

    config = load_configuration(Path.cwd()).with_selection(select, ignore).with_settings(settings)
    if config != Configuration():
        from stabdiag.analysis.diagnose import check_names

        check_names(config)
    return config
