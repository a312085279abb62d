"""One chart, map or table, readable without a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from stabdiag.core.run import Run
from stabdiag.render import figures, svg
from stabdiag.render.curve import Curve, curves
from stabdiag.render.envelope import last_values

LINES = 5
POINTS = 600


@dataclass(frozen=True)
class Drawing:
    """`still` is the chart as SVG, `keys` its lines by name; with a script `spec` takes its place (a plotly
    chart), or the heat map of the series `map`. A table has a `head` and `rows` instead, of which the first
    cell is a site."""

    caption: str
    still: Markup = field(default_factory=Markup)
    keys: tuple[str, ...] = ()
    spec: dict[str, Any] | None = None
    map: str = ""
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    note: str = ""


def lines(
    run: Run,
    series: Sequence[str],
    caption: str,
    unit: str,
    *,
    sites: Sequence[str] = (),
    log: bool = False,
    level: tuple[float, str] | None = None,
    dashed: Sequence[str] = (),
) -> Drawing | None:
    """Those of `series` that were measured at `sites` (empty: the first of all), LINES at most.

    `level` is a horizontal line and its name, `dashed` are series that are limits to the others.
    """
    shown: list[tuple[str, str, Curve]] = []
    for name in series:
        found = curves(run, name, tuple(sites), LINES)
        shown += [(name, c.name, c) for c in found if len(c.finite)]
    shown = shown[:LINES]
    if not shown:
        return None
    names = _names([(name.partition(".")[2], site) for name, site, _ in shown])
    thin = [c.thinned(max(POINTS // len(shown), 50)) for _, _, c in shown]
    levels = [level[0]] if level else []
    still = svg.chart(thin, caption, levels=levels)
    spec = figures.line_chart(thin, names, unit, log=log, level=level)
    for trace, (name, _, _) in zip(spec["data"], shown, strict=False):
        if name in dashed:
            trace["line"] |= {"dash": "dash", "color": "--muted"}
    return Drawing(caption, still, tuple(names), spec)


def _names(shown: Sequence[tuple[str, str]]) -> list[str]:
    """Told by statistic, by site, or by both, whichever differ."""
    one_statistic = len({statistic for statistic, _ in shown}) == 1
    one_site = len({site for _, site in shown}) == 1
    if one_statistic:
        return [statistic if site == "run" else site for statistic, site in shown]
    return [statistic if one_site else f"{site} {statistic}" for statistic, site in shown]


def heat(run: Run, series: str, caption: str, *, lowest: bool = False) -> Drawing | None:
    """The map of all sites; without a script the lines of the most extreme ones."""
    sites = extreme_sites(run, series, lowest=lowest)
    drawn = lines(run, [series], caption, "", sites=sites) if sites else None
    return Drawing(caption, drawn.still, drawn.keys, map=series) if drawn else None


def extreme_sites(run: Run, series: str, most: int = LINES, *, lowest: bool = False) -> tuple[str, ...]:
    """The sites with the largest (or the lowest) last measured value, most extreme first."""
    if series not in run:
        return ()
    table = run.table(series)
    last = last_values(table.values)
    key = last if lowest else -last
    order = [int(i) for i in np.argsort(key, kind="stable") if np.isfinite(last[i])]
    return tuple(table.names[i] for i in order[:most])
