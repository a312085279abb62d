"""`stabdiag explain`: what a name in a report means."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from stabdiag.analysis.catalogue import Cause, Fix, Signature
    from stabdiag.core.registry import Registry
    from stabdiag.render.terminal import Lines

COLUMN = 14


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--markdown", "as_markdown", is_flag=True, help="All of the catalogue as one document.")
def explain(name: str | None, as_json: bool, as_markdown: bool) -> None:
    """Explain a signature, a cause or a fix; without NAME, list them all."""
    if as_markdown:
        from stabdiag.render.catalogue import catalogue_markdown

        click.echo(catalogue_markdown(), nl=False)
    elif as_json:
        record = _record(_entry(name)) if name else {what: _ids(of) for what, of in _catalogues().items()}
        click.echo(json.dumps(record, indent=2, ensure_ascii=False))
    elif name:
        _print_entry(_entry(name))
    else:
        _print_catalogue()


def _catalogues() -> dict[str, Registry[Any]]:
    from stabdiag.analysis.catalogue import CAUSES, FIXES, SIGNATURES

    return {"signatures": SIGNATURES, "causes": CAUSES, "fixes": FIXES}


def _ids(catalogue: Registry[Any]) -> list[dict[str, str]]:
    return [{"id": entry.id, "title": entry.title} for entry in catalogue]


def _entry(name: str) -> Signature | Cause | Fix:
    from stabdiag.core.errors import UnknownName

    catalogues = _catalogues().values()
    for catalogue in catalogues:
        if name in catalogue:
            entry: Signature | Cause | Fix = catalogue[name]
            return entry
    raise UnknownName("signature, cause or fix", name, [e.id for catalogue in catalogues for e in catalogue])


def _record(entry: Signature | Cause | Fix) -> dict[str, Any]:
    """All that the catalogue says of the entry."""
    from stabdiag.render.catalogue import links

    record: dict[str, Any] = {"kind": type(entry).__name__.lower(), "id": entry.id, "title": entry.title}
    return record | {"doc": entry.doc} | links(entry)


def _print_entry(entry: Signature | Cause | Fix) -> None:
    from rich.text import Text

    from stabdiag.render.catalogue import links
    from stabdiag.render.terminal import Lines, console_for

    console = console_for(sys.stdout)
    console.print(Text.assemble((entry.id, "bold"), f"  ({type(entry).__name__.lower()})"))
    console.print(Text(f"{entry.title}\n\n{entry.doc}\n"), soft_wrap=True)
    lines = Lines(console)
    for label, value in links(entry).items():
        if isinstance(value, dict):
            value = [f"{entry.id}.{name}={default:g}" for name, default in value.items()]
        if value:
            lines.item(label, ", ".join(value), column=COLUMN)
    for line in _picture(entry, lines):
        console.print(Text(line), soft_wrap=True)


def _picture(entry: Signature | Cause | Fix, lines: Lines) -> list[str]:
    """What a signature looks like: its first synthetic example."""
    import numpy as np

    from stabdiag.analysis.catalogue import Signature
    from stabdiag.render.sketch import sketch

    if not isinstance(entry, Signature):
        return []
    run = entry.fires[0](np.random.default_rng(0))
    with np.errstate(all="ignore"):
        found = next(iter(entry(run)))
    room = min(lines.console.width - COLUMN, 60)
    drawn = sketch(run, found, room, ascii_only=not lines.says_unicode)
    return ["", "An example:", *drawn, found.message] if drawn else []


def _print_catalogue() -> None:
    from rich.text import Text

    from stabdiag.render.terminal import Lines, console_for

    console = console_for(sys.stdout)
    catalogues = _catalogues()
    column = max(len(entry.id) for catalogue in catalogues.values() for entry in catalogue) + 4
    lines = Lines(console)
    for what, catalogue in catalogues.items():
        console.print(Text(what.capitalize(), style="bold"))
        for entry in catalogue:
            lines.item(entry.id, entry.title, indent=2, column=column, label_style="")
        lines.blank()
