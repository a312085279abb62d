"""Parts of a whole over steps, stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.run import Run
from stabdiag.render import figures, svg
from stabdiag.render.curve import Curve
from stabdiag.render.drawing import Drawing

COLUMNS = 200
Floats = NDArray[np.float64]


class Part(NamedTuple):
    """A statistic of kind `run`, and what it is called."""

    statistic: str
    name: str


def stack(
    run: Run, parts: Sequence[Part], caption: str, unit: str, *, total: Part, over: Part
) -> Drawing | None:
    """`parts`, one on the other, and what they leave of `total` under its name; None without any of them.

    `over` is a line of its own: it lies within the parts. Each column of at most COLUMNS is the mean of
    its steps. A part that was not measured at a step counts as zero there.
    """
    data = run.kinds["run"]
    present = [part for part in parts if np.isfinite(data.values.get(part.statistic, np.nan)).any()]
    if not present or not len(data.steps):
        return None
    starts = np.unique(
        np.linspace(0, len(data.steps), min(COLUMNS, len(data.steps)), endpoint=False).astype(int)
    )
    columns = [_means(data.values[part.statistic][:, 0], starts) for part in present]
    names = [part.name for part in present]
    if total.statistic in data.values:
        left = _means(data.values[total.statistic][:, 0], starts) - np.sum(columns, axis=0)
        columns.append(np.maximum(left, 0))
        names.append(total.name)
    tops = np.cumsum(columns, axis=0)
    steps = data.steps[starts]
    line = _means(data.values[over.statistic][:, 0], starts) if over.statistic in data.values else None
    # One step that loads or compiles would press all others flat.
    highest, usual = float(tops[-1].max()), 1.5 * float(np.quantile(tops[-1], 0.98))
    roof = usual if highest > 2 * usual > 0 else highest
    shown = [Curve(n, steps, np.minimum(top, roof)) for n, top in zip(names, tops, strict=True)]
    if line is not None:
        shown.append(Curve(over.name, steps, np.minimum(line, roof)))
    still = svg.chart([*shown, Curve("", steps, np.zeros(len(steps)))], caption)
    keys = tuple(c.name for c in shown)
    return Drawing(caption, still, keys, _spec(steps, columns, names, line, over.name, unit, roof))


def _means(values: NDArray[np.float32], starts: NDArray[np.int_]) -> Floats:
    known = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    widths = np.diff([*starts, len(values)])
    means: Floats = np.add.reduceat(known, starts) / widths
    return means


def _spec(
    steps: NDArray[np.int64],
    columns: Sequence[Floats],
    names: Sequence[str],
    line: Floats | None,
    line_name: str,
    unit: str,
    roof: float,
) -> dict[str, Any]:
    curves = [Curve(name, steps, values) for name, values in zip(names, columns, strict=True)]
    spec = figures.line_chart(curves, list(names), unit)
    for i, trace in enumerate(spec["data"]):
        trace |= {"stackgroup": "whole", "fillcolor": f"--series-{i % 5}", "mode": "lines"}
        trace["line"] = {"width": 0, "color": f"--series-{i % 5}"}
    if line is not None:
        (recorder,) = figures.line_chart([Curve(line_name, steps, line)], [line_name], unit)["data"]
        recorder["line"] = {"color": "--broken", "width": 1.5}
        spec["data"].append(recorder)
    spec["layout"]["yaxis"] |= {"type": "linear", "range": [0, roof * 1.03]}
    spec["layout"]["yaxis"].pop("dtick", None)
    return spec
