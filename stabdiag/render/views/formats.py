"""What would be lost in narrower formats, as a table of the worst sites."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.core.run import Run
from stabdiag.render.dashboard import Panel
from stabdiag.render.drawing import Drawing
from stabdiag.render.envelope import last_values
from stabdiag.render.numbers import number
from stabdiag.render.view import VIEWS, View

ROWS = 12


def _draw(run: Run, panel: Panel) -> Iterator[Drawing]:
    """The sites of the series' first kind that would lose most, at their last measured step."""
    series = panel.matching(run.series)
    if not series:
        return
    kind = series[0].partition(".")[0]
    columns = [name for name in series if name.startswith(f"{kind}.")]
    last = np.stack([last_values(run.table(name).values) for name in columns], axis=1)
    measured = np.flatnonzero(np.isfinite(last).any(axis=1))
    if not len(measured):
        return
    order = measured[np.argsort(-np.nanmax(last[measured], axis=1), kind="stable")]
    names = run.table(columns[0]).names
    rows = tuple((names[i], *(_share(value) for value in last[i])) for i in order[:ROWS])
    more = f"; the {ROWS} worst of {len(order):,}" if len(order) > ROWS else ""
    head = ("module", *(_heading(name.partition(".")[2]) for name in columns))
    yield Drawing(f"{panel.title}, at the last measured step{more}", head=head, rows=rows)


def _heading(statistic: str) -> str:
    """`underflow_fp8_e4m3` as `fp8_e4m3 underflow`."""
    side, _, name = statistic.partition("_")
    return f"{name} {side}"


def _share(value: float) -> str:
    """In percent: `0`, `< 0.01 %`, `3.2 %`."""
    if not np.isfinite(value):
        return ""
    if value == 0:
        return "0"
    return "< 0.01 %" if value < 1e-4 else f"{number(float(f'{100 * value:.2g}'))} %"


VIEWS.add(View("formats", _draw))
