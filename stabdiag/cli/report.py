"""`stabdiag report`: what became of a run, on the terminal and as a page."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stabdiag.cli._options import (
    RUN,
    configuration,
    dashboard_option,
    map_option,
    read_run,
    selection_options,
)
from stabdiag.cli._output import write

if TYPE_CHECKING:
    from stabdiag.core.diagnosis import Diagnosis
    from stabdiag.core.run import Run
    from stabdiag.render.dashboard import Dashboard


@click.command()
@click.argument("runs", nargs=-1, type=RUN, metavar="[RUN]...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown", "html", "tensorboard"]),
    help="Only this, on stdout; html as report.html, tensorboard as a folder of that name.  [default: text, "
    "and report.html]",
)
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="PATH", help="Write to this file or folder instead."
)
@click.option(
    "--plotly",
    type=click.Choice(["inline", "cdn"]),
    default="inline",
    show_default=True,
    help="Whether the page holds plotly.js, or loads it from its public address.",
)
@dashboard_option("What the page shows, and in which order.")
@map_option
@selection_options
@click.option("--verbose", "-v", is_flag=True, help="With the code of each fix, and what was skipped.")
def report(
    runs: tuple[Path, ...],
    form: str | None,
    output: Path | None,
    plotly: str,
    dashboard: str,
    names: tuple[str, ...],
    settings: tuple[str, ...],
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    verbose: bool,
) -> None:
    """Report on each RUN: a summary on stdout, and report.html in its directory.

    RUN is a run directory, by default the latest of stabdiag-runs; or the log of another tool: TensorBoard
    event files, a trainer_state.json of Hugging Face, a .wandb file, CSV or JSON lines of metrics. The page
    of such a log goes into the working directory, under its name.
    """
    from stabdiag.analysis.diagnose import diagnose
    from stabdiag.core.errors import StabdiagError
    from stabdiag.core.verification import marked
    from stabdiag.render.dashboard import load_dashboard
    from stabdiag.store.directory import page_of
    from stabdiag.store.verification import read_verification

    if output and len(runs) > 1:
        raise StabdiagError("--output takes one RUN", "without it each report goes into its run directory")
    config = configuration(settings, select, ignore)
    for path in runs or (None,):
        run = read_run(path, names)
        shown = load_dashboard(dashboard, recorded=run.series)
        diagnosis = marked(diagnose(run, config), read_verification(run.path))
        page = output if output and form in (None, "html") else page_of(run.path)
        if form is None:
            _text(run, diagnosis, None, verbose)
        if form in (None, "html"):
            from stabdiag.render.page import write_page

            write_page(run, diagnosis, page, plotly, shown)  # type: ignore[arg-type]
            click.echo(f"stabdiag: wrote {page}", err=True)
        elif form == "tensorboard":
            _board(run, diagnosis, output, shown)
        elif form == "text":
            _text(run, diagnosis, output, verbose)
        else:
            write(_rendered(run, diagnosis, form), output)


def _board(run: Run, diagnosis: Diagnosis, output: Path | None, shown: Dashboard) -> None:
    from stabdiag.render.tensorboard import write_tensorboard
    from stabdiag.store.directory import board_of

    folder = output or board_of(run.path)
    write_tensorboard(run, diagnosis, folder, shown)
    click.echo(f"stabdiag: wrote {folder}: tensorboard --logdir {shlex.quote(str(folder))}", err=True)


def _rendered(run: Run, diagnosis: Diagnosis, form: str) -> str:
    if form == "json":
        from stabdiag.render.json_report import render_json

        return render_json(diagnosis)
    from stabdiag.render.markdown import render_markdown

    return render_markdown(run, diagnosis)


def _text(run: Run, diagnosis: Diagnosis, output: Path | None, verbose: bool) -> None:
    import io

    from stabdiag.render.terminal import console_for
    from stabdiag.render.text import render_text

    stream = io.StringIO() if output else sys.stdout
    render_text(run, diagnosis, console_for(stream), verbose=verbose)
    if isinstance(stream, io.StringIO):
        write(stream.getvalue(), output)
