"""Whether what a dashboard says can be meant, and what else may have been."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from stabdiag.core.errors import StabdiagError
from stabdiag.render.kind import KINDS
from stabdiag.render.view import VIEWS, template_views

WORDS = {str: "a text in quotes", bool: "true or false", float: "a number", list: "a list in brackets"}
OTHERS = "others"
"""The view of all kinds that no panel of a dashboard names."""
GLOB = frozenset("*?[")


@dataclass(frozen=True)
class Place:
    """A dashboard's file, to point at a line of it."""

    name: str
    text: str

    def wrong(self, message: str, near: str, hint: str) -> StabdiagError:
        """An error at the first line that holds `near`."""
        lines = enumerate(self.text.splitlines(), 1)
        line = next((f", line {i}" for i, line in lines if near and near in line), "")
        return StabdiagError(f"dashboard {self.name}{line}: {message}", hint)


def suggestion(name: str, known: Iterable[str]) -> str:
    """`did you mean health?`, or all there is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(names)}"


def typed(place: Place, table: Any, key: str, kind: type, default: Any) -> Any:
    """The value of `key` in a table of the file, if it is of that kind."""
    if not isinstance(table, Mapping):
        raise place.wrong("section and panel are tables", "section", "write [[section]], not section = …")
    value = table.get(key, default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if value is not default and not isinstance(value, kind):
        raise place.wrong(f"{key} is {WORDS[kind]}, not {value!r}", key, f"change {key}, or leave it out")
    return value


def check_keys(place: Place, what: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in table:
        if key not in known:
            raise place.wrong(f"a {what} has no {key!r}", key, suggestion(key, known))


def check_view(place: Place, view: str) -> None:
    known = [*(entry.id for entry in VIEWS), *template_views(), OTHERS]
    if view and view not in known:
        raise place.wrong(f"there is no view {view!r}", view, suggestion(view, known))


def check_series(place: Place, series: str, recorded: Iterable[str]) -> None:
    """A name or glob is known where it fits a series that is recorded, or that stabdiag can record."""
    if any(fnmatchcase(name, series) for name in recorded):
        return
    kind, dot, statistic = series.partition(".")
    if not dot or not statistic:
        raise place.wrong(f"{series!r} is no series", series, "a series is written kind.statistic: run.loss")
    kinds = [entry for entry in KINDS if fnmatchcase(entry.id, kind)]
    if not kinds:
        raise place.wrong(f"there is no series {series!r}", series, suggestion(kind, (k.id for k in KINDS)))
    statistics = {name for entry in kinds for name in (*entry.units, "nonfinite")}
    if not any(_fits(statistic, name) for name in statistics):
        known = (f"{entry.id}.{name}" for entry in kinds for name in entry.units)
        raise place.wrong(f"there is no series {series!r}", series, suggestion(series, known))


def _fits(pattern: str, statistic: str) -> bool:
    """Either may be a glob: of two, what stands before their first wildcards has to agree."""
    if GLOB.isdisjoint(pattern) or GLOB.isdisjoint(statistic):
        return fnmatchcase(statistic, pattern) or fnmatchcase(pattern, statistic)
    heads = [name[: min(name.find(c) for c in GLOB & set(name))] for name in (pattern, statistic)]
    return heads[0].startswith(heads[1]) or heads[1].startswith(heads[0])
