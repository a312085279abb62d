"""The catalogue of signatures, causes and fixes: what leads where, and all of it as one document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stabdiag.analysis.catalogue import CAUSES, FIXES, SIGNATURES, Cause, Fix, Signature

Entry = Signature | Cause | Fix

INTRODUCTION = """\
# Signatures, causes and fixes

Written by `stabdiag explain --markdown` from the entries themselves; `stabdiag explain NAME` tells the same
of one of them, with a picture."""


def links(entry: Entry) -> dict[str, Any]:
    """What the entry needs, and the names that lead on from it."""
    if isinstance(entry, Signature):
        return {
            "needs": list(entry.needs),
            "thresholds": entry.thresholds,
            "follows from": [s.id for s in SIGNATURES if entry.id in s.explains],
            "explains": list(entry.explains),
            "causes": list(entry.causes),
        }
    if isinstance(entry, Cause):
        return {
            "shown by": [signature.id for signature in SIGNATURES if entry.id in signature.causes],
            "moves first": list(entry.moves_first),
            "fixes": list(entry.fixes),
        }
    return {"cures": [cause.id for cause in CAUSES if entry.id in cause.fixes]}


def catalogue_markdown() -> str:
    """All entries, each with its documentation and its links."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield INTRODUCTION
    catalogues: Mapping[str, Any] = {"Signatures": SIGNATURES, "Causes": CAUSES, "Fixes": FIXES}
    for heading, catalogue in catalogues.items():
        yield from ("", f"## {heading}")
        for entry in catalogue:
            yield from _entry(entry)


def _entry(entry: Entry) -> Iterator[str]:
    yield from ("", f"### {entry.id}", "", f"{_plain(entry.title)}.")
    for paragraph in entry.doc.split("\n\n"):
        told = _plain(" ".join(paragraph.split()))
        yield from ("", re.sub(r"^([A-Z][\w -]{3,24}):", r"**\1:**", told))
    facts = [f"- {label}: {_names(label, value)}" for label, value in links(entry).items() if value]
    if facts:
        yield from ("", *facts)


def _names(label: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"`{name}` = {default:g}" for name, default in value.items())
    if label in ("needs", "moves first"):
        return ", ".join(f"`{name}`" for name in value)
    return ", ".join(f"[{name}](#{name})" if _known(name) else name for name in value)


def _known(name: str) -> bool:
    return name in SIGNATURES or name in CAUSES or name in FIXES


def _plain(text: str) -> str:
    """Without markup, but for code."""
    parts = text.split("`")
    return "`".join(re.sub(r"([*_<\[\]])", r"\\\1", p) if i % 2 == 0 else p for i, p in enumerate(parts))
