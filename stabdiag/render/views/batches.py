"""The batches by their fingerprints: how many there were, which came again, and which were costly."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.run import Run
from stabdiag.render.dashboard import Panel
from stabdiag.render.drawing import Drawing
from stabdiag.render.numbers import count, fingerprint, number
from stabdiag.render.view import VIEWS, View

ROWS = 8
TIMES = 4
AROUND = 7
HEAD = ("step", "fingerprint", "loss", "largest magnitude", "also at steps")


def _draw(run: Run, panel: Panel) -> Iterator[Drawing]:
    """Those whose loss stands out most from that of their neighbours, of the input whose fingerprint was
    taken most often."""
    if "batch.fingerprint" not in panel.matching(run.series):
        return
    table = run.table("batch.fingerprint")
    taken = np.isfinite(table.values)
    if not taken.any():
        return
    site = int(taken.sum(axis=0).argmax())
    at = np.flatnonzero(taken[:, site])
    steps, prints = table.steps[at], table.values[at, site].astype(np.int64)
    losses = _at(run, "run.loss", steps, "run")
    reach = _at(run, "batch.absmax", steps, table.names[site])
    rows = [
        (
            count(int(steps[i])),
            fingerprint(int(prints[i])),
            number(float(losses[i])),
            number(float(reach[i])) if np.isfinite(reach[i]) else "",
            _others(steps[prints == prints[i]], int(steps[i])),
        )
        for i in _outstanding(losses)
    ]
    filled = [i for i in range(len(HEAD)) if any(row[i] for row in rows)]
    different = len(np.unique(prints))
    told = f"{count(len(prints), 'batch', 'batches')} of {table.names[site]}, {count(different)} different"
    yield Drawing(
        f"{told}; those whose loss stands out most",
        head=tuple(HEAD[i] for i in filled),
        rows=tuple(tuple(row[i] for i in filled) for row in rows),
    )


def _outstanding(losses: NDArray[np.float64]) -> NDArray[np.intp]:
    """The first losses of stretches that are not finite, as after the first there is nothing to tell; then
    those most above the median of the losses around them."""
    broken = ~np.isfinite(losses)
    told = ~(broken & np.append(False, broken[:-1]))
    ranked = np.argsort(-_excess(losses), kind="stable")
    return np.asarray(ranked[told[ranked]][:ROWS])


def _excess(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the median of the losses around each; of those that are not finite infinite."""
    finite = np.where(np.isfinite(losses), losses, np.nan)
    around = np.pad(finite, AROUND, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(around, 2 * AROUND + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        excess = finite - np.nanmedian(windows, axis=1)
    return np.where(np.isfinite(losses), np.nan_to_num(excess), np.inf)


def _at(run: Run, series: str, steps: NDArray[np.int64], site: str) -> NDArray[np.float64]:
    """The values at `steps`, NaN where the series has none."""
    found = np.full(len(steps), np.nan)
    if series in run and site in (table := run.table(series)).names:
        place = np.searchsorted(table.steps, steps).clip(max=max(len(table.steps) - 1, 0))
        there = table.steps[place] == steps
        found[there] = table.column(site)[place[there]]
    return found


def _others(steps: NDArray[np.int64], own: int) -> str:
    others = [count(int(step)) for step in steps if step != own]
    more = f" and {count(len(others) - TIMES)} more" if len(others) > TIMES else ""
    return ", ".join(others[:TIMES]) + more


VIEWS.add(View("batches", _draw))
