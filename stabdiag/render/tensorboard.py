"""A run for TensorBoard: numbers, histograms where quantiles were recorded, findings as text, and the
dashboards as the layout of its custom scalars."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.errors import StabdiagError
from stabdiag.core.finding import Severity
from stabdiag.core.run import KindData, Run
from stabdiag.render import tensorboard_summaries as summaries
from stabdiag.render.curve import OF_THE_LOSS
from stabdiag.render.dashboard import Dashboard
from stabdiag.render.downsample import downsample
from stabdiag.render.tensorboard_layout import categories
from stabdiag.render.tensorboard_text import findings_text

SUFFIX = ".stabdiag"
POINTS = 1000
"""Points of a curve. TensorBoard draws no more, and picks them at random: these hold each spike and NaN."""
LEAST = 8
MOST = 500_000
"""Numbers that one look at a run writes, at most, but for `LEAST` a curve."""
SETTLED = 64
"""Rows behind the last that ranks which train together may still add to."""
SAMPLES = 8192.0
"""Elements behind the quantiles of a distribution."""


def write_tensorboard(run: Run, diagnosis: Diagnosis, folder: Path, dashboard: Dashboard) -> None:
    """Event files in `folder`, in the place of those that stabdiag wrote there before. Raises StabdiagError
    where that cannot be."""
    try:
        for file in folder.glob(f"*tfevents*{SUFFIX}"):
            file.unlink()
        with contextlib.closing(Board(folder, dashboard)) as board:
            board.add(run, ended=True)
            board.tell(run, diagnosis, ended=True)
    except OSError as error:
        raise StabdiagError(
            f"cannot write {folder}: {error.strerror}", "give another place by --output"
        ) from error


class Board:
    """Event files of a run that may still be recorded. `most` as `MOST`."""

    def __init__(self, folder: Path, dashboard: Dashboard, most: int = MOST) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer: Any = EventFileWriter(str(folder), filename_suffix=SUFFIX)
        self._dashboard = dashboard
        self._most = most
        self._written: dict[str, int] = {}
        self._found: list[tuple[str, Severity]] = []
        self._texts: dict[str, str] = {}
        self._charts: list[str] = []

    def add(self, run: Run, *, ended: bool = False) -> None:
        """Writes the rows that are new since the last time. Of a run of several ranks the last ones wait
        until it has `ended`. A layout comes with each series that is new, and in the end."""
        parts = {kind: self._new(run, kind, ended) for kind in run.kinds}
        curves = sum(len(data.sites) * len(data.values) for data in parts.values() if len(data.steps))
        limit = int(np.clip(self._most // max(curves, 1), LEAST, POINTS))
        for kind, data in parts.items():
            if len(data.steps):
                self._written[kind] = int(data.steps[-1])
                for step, time, values in _rows(kind, data, limit):
                    self._event(step, time, values)
        found = categories(run, self._dashboard)
        titles = [chart.title for category in found for chart in category.charts]
        if titles and (ended or titles != self._charts):
            self._charts = titles
            self._event(0, run.info.started or 0.0, [summaries.layout(found)])

    def tell(self, run: Run, diagnosis: Diagnosis, *, ended: bool = False) -> None:
        """Writes what the diagnosis says, where it found anything new; and in the end."""
        found = [(finding.signature, finding.severity) for finding in diagnosis.findings]
        if found == self._found and not ended:
            return
        self._found = found
        for name, step, markdown in findings_text(run, diagnosis):
            if self._texts.get(name) != markdown:
                self._texts[name] = markdown
                self._event(step, _time_of(run, step), [summaries.text(name, markdown)])

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _new(self, run: Run, kind: str, ended: bool) -> KindData:
        data = run.kinds[kind]
        held = SETTLED if run.info.processes > 1 and not ended else 0
        last = int(data.steps[len(data.steps) - 1 - held]) if len(data.steps) > held else -1
        return data.window(self._written.get(kind, -1) + 1, last)

    def _event(self, step: int, time: float, values: list[Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._writer.add_event(Event(step=step, wall_time=time, summary=Summary(value=values)))


def _rows(kind: str, data: KindData, limit: int) -> Iterator[tuple[int, float, list[Any]]]:
    """(step, time, values of a summary) of each row of which anything is kept."""
    measured = _measured(data)
    kept: dict[str, NDArray[np.bool_]] = {}
    for name, values in data.values.items():
        told = kind != "run" or name in OF_THE_LOSS
        wanted = (values > 0) if name == "nonfinite" else ((measured & told) | ~np.isnan(values))
        kept[name] = _thinned(values, wanted, limit)
    tags = {name: [summaries.tag(f"{kind}.{name}", site.name) for site in data.sites] for name in kept}
    spread = [kept[name] for name in summaries.QUANTILES if name in kept]
    drawn = np.logical_and.reduce(spread) if len(spread) == len(summaries.QUANTILES) else None
    for at in np.flatnonzero(np.logical_or.reduce([keep.any(axis=1) for keep in kept.values()])).tolist():
        row = [
            summaries.scalar(tags[name][column], float(data.values[name][at, column]))
            for name, keep in kept.items()
            for column in np.flatnonzero(keep[at]).tolist()
        ]
        if drawn is not None:
            row += _histograms(kind, data, at, drawn[at])
        time = float(data.times[at])
        yield int(data.steps[at]), time if np.isfinite(time) else 0.0, row


def _measured(data: KindData) -> NDArray[np.bool_]:
    """[steps, sites]: where a NaN is a measured one."""
    flags = data.values.get("nonfinite")
    return np.zeros((len(data.steps), len(data.sites)), bool) if flags is None else flags > 0


def _thinned(values: NDArray[np.floating], wanted: NDArray[np.bool_], limit: int) -> NDArray[np.bool_]:
    """At most `limit` of the wanted ones of each column, its extremes and the first non-finite among them."""
    if len(values) <= limit:
        return wanted
    kept = np.zeros(wanted.shape, bool)
    for column in range(wanted.shape[1]):
        at = np.flatnonzero(wanted[:, column])
        kept[at[downsample(values[at, column], limit)], column] = True
    return kept


def _histograms(kind: str, data: KindData, at: int, sites: NDArray[np.bool_]) -> Iterator[Any]:
    for column in np.flatnonzero(sites).tolist():
        edges = np.array([data.values[name][at, column] for name in summaries.QUANTILES], np.float64)
        if np.isfinite(edges).all():
            name = f"{kind}/{data.sites[column].name}"
            yield summaries.histogram(name, np.maximum.accumulate(edges), SAMPLES)


def _time_of(run: Run, step: int) -> float:
    """When the step was recorded, 0 where that is not known."""
    if "run" not in run.kinds or not len(run.kinds["run"].steps):
        return 0.0
    data = run.kinds["run"]
    time = float(data.times[min(int(np.searchsorted(data.steps, step)), len(data.steps) - 1)])
    return time if np.isfinite(time) else 0.0
