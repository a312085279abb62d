"""The dashboards as TensorBoard's custom scalars: a category a section, a chart a panel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stabdiag.core.run import Run
from stabdiag.render.dashboard import Dashboard, Panel
from stabdiag.render.sections import completed
from stabdiag.render.tensorboard_summaries import tag
from stabdiag.render.view import VIEWS

TIMELINE = "timeline"
LINES = 10
"""Lines that a chart of TensorBoard is readable with."""


@dataclass(frozen=True)
class Chart:
    """`tags` are regular expressions, one a line."""

    title: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Category:
    title: str
    charts: tuple[Chart, ...]
    closed: bool = False


def categories(run: Run, dashboard: Dashboard) -> list[Category]:
    """The sections of which the run has any series; the first is open. What tells of the diagnosis is left
    out: that is text."""
    found: list[Category] = []
    for section in completed(dashboard, run).sections:
        charts = tuple(chart for panel in section.panels for chart in _charts(run, panel))
        if charts:
            found.append(Category(section.title, charts, closed=bool(found)))
    return found


def _charts(run: Run, panel: Panel) -> Iterator[Chart]:
    if panel.view not in ("", TIMELINE) and panel.view not in VIEWS:
        return
    series = panel.matching(run.series)
    if panel.view == TIMELINE:  # they share the steps and no axis
        for one in series:
            yield from _chart(run, panel, one, (one,))
        return
    yield from _chart(run, panel, panel.title or ", ".join(series), series)


def _chart(run: Run, panel: Panel, title: str, series: tuple[str, ...]) -> Iterator[Chart]:
    room = max(LINES // max(len(series), 1), 1)
    tags = [tag(one, site) for one in series for site in _sites(run, panel, one, room)]
    if tags:
        yield Chart(title, tuple(f"^{re.escape(name)}$" for name in tags))


def _sites(run: Run, panel: Panel, series: str, room: int) -> list[str]:
    """Those with the highest last values, or the lowest; in the order of the forward pass."""
    table = run.table(series)
    known = np.isfinite(table.values)
    shown = [i for i, name in enumerate(table.names) if panel.shows(name) and known[:, i].any()]
    values = table.values[:, shown]
    measured = np.flatnonzero(known[:, shown].any(axis=1))
    if not measured.size:
        return []
    last = values[measured[-1]] * (-1 if panel.lowest else 1)
    best = sorted(np.argsort(-np.where(np.isfinite(last), last, -np.inf), kind="stable")[:room].tolist())
    return [table.names[shown[i]] for i in best]
