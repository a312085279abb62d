"""The rows of a step on their way from the device into the run directory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from stabdiag.capture.guard import Guard
from stabdiag.capture.row import Harvest, Measured, Row
from stabdiag.capture.transfer import HostCopy
from stabdiag.core.event import Event
from stabdiag.core.tier import Tier

OWN = ("grad_carryover", "skipped", "tier", "overhead")
MOST_NAMED = 8


class Sink(Protocol):
    """Where rows and events go. Both methods may raise OSError."""

    def write(self, kind: str, step: int, time: float, sites: Any, columns: Any) -> None: ...

    def event(self, event: Event) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class _Pending:
    step: int
    time: float
    tier: Tier
    skipped: bool
    copy: HostCopy
    harvests: Mapping[str, Harvest]


class Rows:
    """Writes one row a kind and step.

    To what the probes add to the run's own row come `tier`, `skipped` (1 where a gradient scaler withheld
    the step), `overhead` (seconds spent by the recorder) and `grad_carryover` (norm of the gradients found
    at the first backward after a step, over their norm at that step: 0 when zeroed, 1 when forgotten).

    `observe(step, time, rows, scalars)` hears of each step, before anything is told of it.
    """

    def __init__(
        self,
        sink: Sink,
        guard: Guard,
        scalars: tuple[str, ...],
        event: Callable[..., None],
        observe: Callable[[int, float, Sequence[Row], Mapping[str, float]], None],
    ) -> None:
        self._sink = sink
        self._guard = guard
        self._scalars = tuple(dict.fromkeys((*scalars, *OWN)))
        self._event = event
        self._observe = observe
        self._pid = os.getpid()
        self._pending: _Pending | None = None
        self._nonfinite_told: set[str] = set()
        self._spent_before = 0.0
        self._last_norm = float("nan")
        self._refused = False

    def add(self, step: int, tier: Tier, skipped: bool, harvests: Mapping[str, Harvest]) -> None:
        """The row is written at once, or from an accelerator when the next one is added."""
        tensors = {f"{id}/{key}": t for id, h in harvests.items() for key, t in h.tensors.items()}
        copy = HostCopy(tensors)
        self.flush()
        self._pending = _Pending(step, time.time(), tier, skipped, copy, harvests)
        if not copy.asynchronous:
            self.flush()

    def flush(self) -> None:
        """Writes the row that is on its way from the device, if there is one."""
        pending, self._pending = self._pending, None
        if pending is None or os.getpid() != self._pid:
            return
        with np.errstate(all="ignore"):  # non-finite numbers are the point; numpy must not warn of them
            self._write_all(pending)

    def _write_all(self, pending: _Pending) -> None:
        step, now = pending.step, pending.time
        arrays = pending.copy.arrays()
        scale = float(arrays.get("run/scale", 1.0)) or 1.0
        rows: list[Row] = []
        scalars: dict[str, float] = {"skipped": float(pending.skipped), "tier": float(pending.tier)}
        for id, harvest in pending.harvests.items():
            own = {key: arrays[f"{id}/{key}"] for key in harvest.tensors}
            measured: Measured | None = self._guard(id, harvest.finish, own, scale)
            if measured is not None:
                rows += measured.rows
                scalars |= measured.scalars
        self._complete(rows, scalars)
        for row in rows:
            self._write(step, now, row)
        self._observe(step, now, rows, scalars)
        self._tell_nonfinite(step, rows, scalars)

    def _complete(self, rows: list[Row], scalars: dict[str, float]) -> None:
        carried = scalars.pop("carried", None)
        if carried is not None and self._last_norm > 0:
            scalars["grad_carryover"] = carried / self._last_norm
        self._last_norm = scalars.get("clipped_grad_norm", float("nan"))
        spent = self._guard.spent
        scalars["overhead"], self._spent_before = spent - self._spent_before, spent
        own = next((row for row in rows if row.kind == "run"), None)
        if own is not None:
            block = np.full((len(self._scalars), len(own.sites)), np.nan, np.float32)
            columns = dict(zip(self._scalars, block, strict=True)) | dict(own.columns)
            for name, value in scalars.items():
                columns[name][0] = value
            rows[rows.index(own)] = own._replace(columns=columns)

    def _write(self, step: int, now: float, row: Row) -> None:
        try:
            self._sink.write(row.kind, step, now, row.sites, row.columns)
        except OSError as error:
            # The next row is tried again: a full disk may empty.
            if not self._refused:
                self._refused = True
                self._event("recorder-error", probe="store", error=str(error))

    def _tell_nonfinite(self, step: int, rows: list[Row], scalars: dict[str, float]) -> None:
        places = {"loss": ["loss"] if scalars.get("nonfinite", 0) > 0 else []}
        for row in rows:
            if row.kind != "run":
                bad = np.flatnonzero(row.columns["nonfinite"] > 0)
                places[row.kind] = [row.sites[i].name for i in bad[:MOST_NAMED]]
        for what, sites in places.items():
            if sites and what not in self._nonfinite_told:
                self._nonfinite_told.add(what)
                self._event("nonfinite", at=step, what=what, sites=sites)
