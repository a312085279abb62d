"""`stabdiag compare`: where two runs part, and what followed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stabdiag.cli._options import RUN, map_option, read_run
from stabdiag.cli._output import write

if TYPE_CHECKING:
    from stabdiag.core.comparison import Comparison
    from stabdiag.core.run import Run


@click.command()
@click.argument("a", type=RUN)
@click.argument("b", type=RUN)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown", "html"]),
    help="Only this, on stdout; html as a page.  [default: text, and the page]",
)
@click.option("--output", type=click.Path(path_type=Path), metavar="PATH", help="Write to this file instead.")
@map_option
def compare(a: Path, b: Path, form: str | None, output: Path | None, names: tuple[str, ...]) -> None:
    """Tell where run B parts from run A beyond their own noise, and what followed.

    A and B are run directories, or logs of other tools. The page lies in the directory of B, as
    compare-<A>.html; beside another tool's log that is the working directory.
    """
    from stabdiag.analysis.comparison.engine import compare as compared

    first, second = read_run(a, names), read_run(b, names)
    told = compared(first, second)
    if form in (None, "text"):
        _text(first, second, told, output if form else None)
    elif form != "html":
        write(_rendered(told, form), output)
    if form in (None, "html"):
        from stabdiag.render.comparison.page import page_name, write_page
        from stabdiag.store.directory import page_of

        page = output or page_of(second.path).with_name(page_name(first))
        write_page(first, second, told, page)
        click.echo(f"stabdiag: wrote {page}", err=True)


def _rendered(told: Comparison, form: str) -> str:
    import json

    from stabdiag.render.comparison.markdown import render_markdown

    if form == "markdown":
        return render_markdown(told)
    return json.dumps(told.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _text(a: Run, b: Run, told: Comparison, output: Path | None) -> None:
    import io

    from stabdiag.render.comparison.text import render_text
    from stabdiag.render.terminal import console_for

    stream = io.StringIO() if output else sys.stdout
    render_text(a, b, told, console_for(stream))
    if isinstance(stream, io.StringIO):
        write(stream.getvalue(), output)
