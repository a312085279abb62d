"""`stabdiag explain`: what a name in a report means."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from stabdiag.cli._names import CATALOGUES, EntryName

if TYPE_CHECKING:
    from stabdiag.analysis.catalogue import Cause, Fix, Signature
    from stabdiag.core.registry import Registry
    from stabdiag.intervene.intervention import Intervention
    from stabdiag.render.terminal import Lines

    Entry = Signature | Cause | Fix | type[Intervention]

COLUMN = 16


@click.command()
@click.argument("name", required=False, type=EntryName(*CATALOGUES))
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--markdown", "as_markdown", is_flag=True, help="All of the catalogue as one document.")
def explain(name: str | None, as_json: bool, as_markdown: bool) -> None:
    """Explain a signature, a cause, a fix or an intervention; without NAME, list them all."""
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
    from stabdiag.intervene.intervention import INTERVENTIONS

    return {"signatures": SIGNATURES, "causes": CAUSES, "fixes": FIXES, "interventions": INTERVENTIONS}


def _ids(catalogue: Registry[Any]) -> list[dict[str, str]]:
    return [{"id": entry.id, "title": entry.title} for entry in catalogue]


def _entry(name: str) -> Entry:
    from stabdiag.core.errors import UnknownName

    catalogues = _catalogues().values()
    for catalogue in catalogues:
        if name in catalogue:
            entry: Entry = catalogue[name]
            return entry
    raise UnknownName("signature, cause or fix", name, [e.id for catalogue in catalogues for e in catalogue])


def _record(entry: Entry) -> dict[str, Any]:
    """All that the catalogue says of the entry."""
    record: dict[str, Any] = {"kind": _kind(entry), "id": entry.id, "title": entry.title}
    return record | {"doc": _doc(entry)} | _links(entry)


def _kind(entry: Entry) -> str:
    return "intervention" if isinstance(entry, type) else type(entry).__name__.lower()


def _doc(entry: Entry) -> str:
    from stabdiag.intervene.intervention import described

    return described(entry) if isinstance(entry, type) else entry.doc


def _links(entry: Entry) -> dict[str, Any]:
    """What the entry needs, and the names that lead on from it."""
    from stabdiag.intervene.intervention import INTERVENTIONS, usage
    from stabdiag.render.catalogue import links

    if isinstance(entry, type):
        return {"use": usage(entry), "value": entry.takes.meaning if entry.takes else ""}
    applied = {"while training": usage(INTERVENTIONS[entry.id])} if entry.id in INTERVENTIONS else {}
    return links(entry) | applied


def _print_entry(entry: Entry) -> None:
    from rich.text import Text

    from stabdiag.intervene.intervention import INTERVENTIONS
    from stabdiag.render.terminal import Lines, console_for

    console = console_for(sys.stdout)
    console.print(Text.assemble((entry.id, "bold"), f"  ({_kind(entry)})"))
    console.print(Text(f"{entry.title}\n\n{_doc(entry)}\n"), soft_wrap=True)
    if not isinstance(entry, type) and entry.id in INTERVENTIONS:
        console.print(Text(f"While training: {_doc(INTERVENTIONS[entry.id])}\n"), soft_wrap=True)
    lines = Lines(console)
    for label, value in _links(entry).items():
        if isinstance(value, dict):
            value = [f"{entry.id}.{name}={default:g}" for name, default in value.items()]
        if value:
            lines.item(label, value if isinstance(value, str) else ", ".join(value), column=COLUMN)
    for line in _picture(entry, lines):
        console.print(Text(line), soft_wrap=True)


def _picture(entry: Entry, lines: Lines) -> list[str]:
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

    from stabdiag.intervene.intervention import usage
    from stabdiag.render.terminal import Lines, console_for

    console = console_for(sys.stdout)
    catalogues = _catalogues()
    column = max(len(entry.id) for catalogue in catalogues.values() for entry in catalogue) + 4
    lines = Lines(console)
    for what, catalogue in catalogues.items():
        console.print(Text(what.capitalize(), style="bold"))
        for entry in catalogue:
            told = usage(entry) if isinstance(entry, type) else entry.title
            lines.item(entry.id, told, indent=2, column=column, label_style="")
        lines.blank()
