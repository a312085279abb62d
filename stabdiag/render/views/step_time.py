"""Where the time of a step goes, stacked."""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.core.run import Run
from stabdiag.render.dashboard import Panel
from stabdiag.render.drawing import Drawing
from stabdiag.render.stack import Part, stack
from stabdiag.render.view import VIEWS, View

PARTS = (
    Part("data_time", "data"),
    Part("forward_time", "forward"),
    Part("backward_time", "backward"),
    Part("optimizer_time", "optimizer"),
)


def _draw(run: Run, panel: Panel) -> Iterator[Drawing]:
    if not panel.matching(run.series):
        return
    total, over = Part("step_time", "other"), Part("overhead", "recorder")
    drawn = stack(run, PARTS, panel.title, "s", total=total, over=over)
    if drawn:
        yield drawn


VIEWS.add(View("step-time", _draw))
