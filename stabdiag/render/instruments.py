"""The sections of the page, one a recorded kind that no other part of the page tells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stabdiag.core.run import Run
from stabdiag.render.numbers import number
from stabdiag.render.panel import LINES, Panel, heat, last_values, lines
from stabdiag.render.view import View, unit_of, view_of, with_unit

PANELS = 4


@dataclass(frozen=True)
class Statistic:
    """One series in numbers: over the sites, each at its last measured step. `where` has the highest."""

    series: str
    unit: str
    lowest: str
    middle: str
    highest: str
    where: str


@dataclass(frozen=True)
class Instrument:
    kind: str
    title: str
    note: str
    panels: tuple[Panel, ...]
    statistics: tuple[Statistic, ...]


def instruments(run: Run) -> list[Instrument]:
    """The kinds in which anything was measured, those without a view of their own last."""
    found = []
    for kind in sorted(run.kinds):
        view = view_of(kind)
        statistics = tuple(_statistics(run, kind))
        if statistics and not view.told_elsewhere:
            drawn = view.panels(run, kind) if view.panels else _generic(run, kind, view)
            panels = tuple(panel for panel in drawn if panel)
            found.append(Instrument(kind, view.title, view.note, panels, statistics))
    return found


def _generic(run: Run, kind: str, view: View) -> Iterator[Panel | None]:
    """Lines for a few sites, a map for many."""
    names = [name for name in run.kinds[kind].values if name != "nonfinite"]
    for name in (view.first or names)[:PANELS]:
        series = f"{kind}.{name}"
        if len(run.sites(kind)) > LINES:
            yield heat(run, series, with_unit(series))
        else:
            yield lines(run, kind, [name], with_unit(series), unit_of(series))


def _statistics(run: Run, kind: str) -> Iterator[Statistic]:
    for name, values in run.kinds[kind].values.items():
        last = last_values(values)
        measured = np.flatnonzero(np.isfinite(last))
        if not len(measured) or (name == "nonfinite" and not (values > 0).any()):
            continue
        best = int(measured[last[measured].argmax()])
        kept = last[measured]
        yield Statistic(
            f"{kind}.{name}",
            unit_of(f"{kind}.{name}"),
            number(float(kept.min())),
            number(float(np.median(kept))),
            number(float(kept.max())),
            run.sites(kind)[best].name if len(run.sites(kind)) > 1 else "",
        )
