"""Curves over steps, in one chart."""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.core.run import Run
from stabdiag.render.dashboard import Panel
from stabdiag.render.drawing import Drawing, lines
from stabdiag.render.kind import axis_unit, with_unit
from stabdiag.render.view import VIEWS, View


def _draw(run: Run, panel: Panel) -> Iterator[Drawing]:
    series = panel.matching(run.series)
    if not series:
        return
    sites = [s.name for name in series for s in run.table(name).sites if panel.shows(s.name)]
    drawn = lines(
        run,
        series,
        panel.title or ", ".join(map(with_unit, series)),
        axis_unit(series[0]),
        sites=list(dict.fromkeys(sites)) if panel.sites else (),
        log=panel.log,
        level=None if panel.limit is None else (panel.limit, "limit"),
        dashed=panel.dashed,
    )
    if drawn:
        yield drawn


VIEWS.add(View("lines", _draw))
