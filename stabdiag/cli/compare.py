"""`stabdiag compare`: where two runs part, and what followed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stabdiag.cli._options import RUN

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
def compare(a: Path, b: Path, form: str | None, output: Path | None) -> None:
    """Tell where run B parts from run A beyond their own noise, and what followed.

    A and B are run directories. The page lies in the directory of B, as compare-<A>.html.
    """
    from stabdiag.analysis.comparison.engine import compare as compared
    from stabdiag.store.directory import resolve_run
    from stabdiag.store.reader import load

    first, second = load(resolve_run(a)), load(resolve_run(b))
    told = compared(first, second)
    if form in (None, "text"):
        _text(first, second, told, output if form else None)
    elif form != "html":
        _write(_rendered(told, form), output)
    if form in (None, "html"):
        from stabdiag.render.comparison.page import page_path, write_page

        page = output or page_path(first, second)
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
        _write(stream.getvalue(), output)


def _write(text: str, output: Path | None) -> None:
    from stabdiag.core.errors import StabdiagError

    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StabdiagError(f"cannot write {output}: {error.strerror}", "give another --output") from error
