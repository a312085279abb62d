"""Sites over steps, one map a series."""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.core.run import Run
from stabdiag.render.dashboard import Panel
from stabdiag.render.drawing import Drawing, heat
from stabdiag.render.kind import with_unit
from stabdiag.render.view import VIEWS, View


def _draw(run: Run, panel: Panel) -> Iterator[Drawing]:
    series = panel.matching(run.series)
    for name in series:
        caption = panel.title if panel.title and len(series) == 1 else with_unit(name)
        drawn = heat(run, name, caption, lowest=panel.lowest)
        if drawn:
            yield drawn


VIEWS.add(View("map", _draw))
