from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.core.run import Run
from stabdiag.render.panel import Panel, heat, last_values
from stabdiag.render.view import VIEWS, View

ROWS = 12
SIDES = ("underflow", "overflow")


def _panels(run: Run, kind: str) -> Iterator[Panel | None]:
    yield _shares(run, kind)
    yield heat(run, f"{kind}.kurtosis", "Kurtosis (3 for a normal distribution)")


def _shares(run: Run, kind: str) -> Panel | None:
    """The sites that would lose most, at their last measured step."""
    columns = [name for name in run.kinds[kind].values if name.startswith(SIDES)]
    if not columns:
        return None
    last = np.stack([last_values(run.kinds[kind].values[name]) for name in columns], axis=1)
    measured = np.flatnonzero(np.isfinite(last).any(axis=1))
    order = measured[np.argsort(-np.nanmax(last[measured], axis=1), kind="stable")]
    names = run.table(f"{kind}.{columns[0]}").names
    rows = tuple((names[i], *(_share(value) for value in last[i])) for i in order[:ROWS])
    more = f"; the {ROWS} worst of {len(order):,}" if len(order) > ROWS else ""
    caption = f"Share of values that would be lost in a narrower format, at the last measured step{more}"
    return Panel(caption, head=("module", *(_heading(name) for name in columns)), rows=rows)


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
    return "< 0.01 %" if value < 1e-4 else f"{100 * value:.2g} %"


UNITS = {
    "kurtosis": "ratio of moments",
    "outliers": "share of values",
    "underflow_*": "share of values",
    "overflow_*": "share of values",
    "q*": "as the tensor",
}
VIEWS.add(View("distribution", "Distribution of outputs", "", UNITS, _panels))
VIEWS.add(View("distribution_grad", "Distribution of their gradients", "", UNITS, _panels))
