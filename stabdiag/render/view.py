"""How a recorded kind is shown on the page: a file in `views/`. A kind without one is drawn all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from stabdiag.core.registry import Registry
from stabdiag.core.run import Run
from stabdiag.render.panel import Panel

Panels = Callable[[Run, str], Iterable[Panel | None]]


@dataclass(frozen=True)
class View:
    """`id` is the kind; `units` names the unit of each statistic (its name or a glob), or what it counts.

    `panels(run, kind)` draws it, None standing for what the run lacks; without it the statistics of
    `first`, and else all that were measured, are drawn as their number of sites allows. A kind that is
    `told_elsewhere` on the page has no section.
    """

    id: str
    title: str
    note: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    panels: Panels | None = None
    first: Sequence[str] = ()
    told_elsewhere: bool = False


VIEWS: Registry[View] = Registry("view", "stabdiag.render.views")


def view_of(kind: str) -> View:
    return VIEWS[kind] if kind in VIEWS else View(kind, kind.replace("_", " ").capitalize())


def unit_of(series: str) -> str:
    """The unit of a series, empty where no view names it."""
    kind, _, statistic = series.partition(".")
    if statistic == "nonfinite":
        return "non-finite values or calls"
    units = view_of(kind).units
    return next((units[pattern] for pattern in units if fnmatchcase(statistic, pattern)), "")


def with_unit(series: str) -> str:
    """`attention.entropy (nats)`."""
    unit = unit_of(series)
    return f"{series} ({unit})" if unit else series
