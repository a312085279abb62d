"""The flight recorder: what the last steps were made of, written when something happens."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from stabdiag.capture.clipping import Clip
from stabdiag.capture.kept import KeptStep
from stabdiag.capture.open_step import Indices, OpenStep
from stabdiag.capture.random_arrays import other_arrays
from stabdiag.capture.row import Arrays, Harvest, Measured, Row, under
from stabdiag.capture.transfer import HostCopy
from stabdiag.core.tier import Tier
from stabdiag.store.flight import row_type, wanted
from stabdiag.store.flight_ring import Ring

BLOCK = 32
"""Unrecorded steps that may wait for their rows: made together, they cost a fraction."""
LOOK = 1.0
"""Seconds between two looks for somebody who wants the record."""
MOST = 4
"""Records of a process: what comes after the first few tells nothing new."""
SCALARS = ("loss", "lr", "grad_norm")


class Told(NamedTuple):
    """What was measured of a step for the run."""

    step: int
    time: float
    rows: Sequence[Row]
    scalars: Mapping[str, float]


class Flight:
    """The last 64 steps of this process, and the batches of the last `keep` of them.

    In steps below the fast tier it notes for itself what costs next to nothing: the norms that clipping
    has taken, a sample of each input. Of others it takes what was measured for the run. The states of
    torch's generators are taken in every step, those of Python and numpy from the fast tier on, or where
    batches are kept: in between they are known as far as nothing was drawn.
    """

    def __init__(self, folder: Path | None = None, keep: int = 0) -> None:
        """Without a folder it only goes through the motions."""
        self.parameters: tuple[str, ...] = ()
        self.indices: Indices = lambda _: []
        """Where tensors are among the parameters."""
        self.tell: Callable[..., None] = lambda *_, **__: None
        """Makes an event of a record that was written."""
        self._folder = folder
        self._keep = keep
        self._open = OpenStep()
        self._closed: list[OpenStep] = []
        self._told: list[Told] = []
        self._arrived: tuple[list[OpenStep], Arrays] = [], {}
        self._batches: deque[tuple[int, KeptStep]] = deque(maxlen=keep)
        self._ring: Ring | None = None
        self._reasons: set[str] = set()
        self._looked = monotonic()

    # While a step goes

    def on_call(
        self, tier: Tier, prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        step = self._open
        step.begin(tier >= Tier.FAST or self._keep > 0)
        if tier < Tier.FAST:
            step.sample(prefix, module, args, kwargs)
        if self._keep:
            step.keep(prefix, args, kwargs)

    def on_clip(self, clip: Clip) -> None:
        self._open.clip(clip)

    def close(self, tier: Tier) -> Harvest | None:
        """Ends a step. What waits for its row goes to the host with the next step that is recorded."""
        self._closed.append(self._open)
        self._open = OpenStep()
        if tier < Tier.FAST and len(self._closed) < BLOCK:
            return None
        closed, self._closed = self._closed, []
        return Harvest(_tensors(closed), partial(self._arrive, closed))

    # On the host

    def _arrive(self, closed: list[OpenStep], arrays: Arrays, _scale: float) -> Measured:
        self._arrived = closed, arrays
        return Measured()

    def take(self, step: int, time: float, rows: Sequence[Row], scalars: Mapping[str, float]) -> None:
        """A step is on the host, with what was measured of it for the run."""
        self._told.append(Told(step, time, rows, scalars))
        (closed, arrays), self._arrived = self._arrived, ([], {})
        self._make_rows(closed, arrays)
        if not math.isfinite(scalars.get("loss", 0.0)):
            self.write("the loss is not finite")
        elif not math.isfinite(scalars.get("grad_norm", 0.0)) and not scalars.get("skipped"):
            self.write("the gradients are not finite")
        elif (now := monotonic()) - self._looked >= LOOK:
            self._looked = now
            self.answer()

    def _make_rows(self, closed: Sequence[OpenStep], arrays: Arrays) -> None:
        told, self._told = self._told[: len(closed)], self._told[len(closed) :]
        for i, (own, of_run) in enumerate(zip(closed, told, strict=True)):
            if own.kept is not None:
                self._batches.append((of_run.step, own.kept))
            self._add(own, of_run, under(f"{i}/", arrays))

    def _add(self, own: OpenStep, told: Told, arrays: Arrays) -> None:
        values: dict[str, Any] = {**own.other_states, **own.inputs(arrays), "time": told.time}
        if own.torch_states is not None:
            values |= own.torch_states.arrays()
        values |= {name: told.scalars[name] for name in SCALARS if name in told.scalars}
        norms = own.norms(arrays, self.indices, len(self.parameters))
        for row in told.rows:
            if row.kind == "grad" and len(row.sites) == len(norms):
                norms = np.where(np.isnan(row.columns["norm"]), norms, row.columns["norm"])
            elif row.kind == "batch":
                names = [site.name for site in row.sites]
                for statistic in ("fingerprint", "min", "max"):
                    values[statistic] = dict(zip(names, row.columns[statistic].tolist(), strict=True))
        ring = self._fitting(values)
        if ring is not None:
            ring.add(told.step, {**values, "grad": norms})

    def _fitting(self, values: Mapping[str, Any]) -> Ring | None:
        """A ring that can hold these; None as long as no call of the model was seen."""
        before, inputs = self._ring, values.get("fingerprint", {})
        if before is not None and before.fits(self.parameters, inputs, values.get("cuda")):
            return before
        if "torch" not in values or self._folder is None:
            return None
        known = before.inputs if before is not None else ()
        inputs = tuple(dict.fromkeys((*known, *inputs)))
        kind = row_type(len(self.parameters), len(inputs), len(values["torch"]), values["cuda"].shape)
        facts = {"threads": torch.get_num_threads()}
        self._ring = Ring(self._folder, kind, self.parameters, inputs, facts)
        if before is not None:
            self._ring.take_over(before)
            before.close()
        return self._ring

    # What makes it write

    def answer(self) -> None:
        """Writes the record if somebody has asked for it."""
        because = wanted(self._folder.parent) if self._folder is not None else ""
        if because:
            self.write(because)

    def end(self, because: str, step: int) -> None:
        """The process ends for a reason; the step that was under way is part of the record."""
        if self._open.torch_states is not None:
            self._closed.append(self._open)
            self._open = OpenStep()
            self._told.append(Told(step, math.nan, (), {}))
        self.write(because)

    def bring_up_to_date(self) -> None:
        """Makes the rows that wait; waits for the device."""
        closed = self._closed[: len(self._told)]
        self._closed = self._closed[len(closed) :]
        self._make_rows(closed, HostCopy(_tensors(closed)).arrays())

    def write(self, because: str) -> None:
        """Writes the record, once for a reason. Raises OSError."""
        if self._folder is None or because in self._reasons or len(self._reasons) >= MOST:
            return
        self._reasons.add(because)
        self.bring_up_to_date()
        if self._ring is None:
            return
        first, last = self._ring.span()
        folder = self._folder / f"step-{last}"
        if folder.exists():  # for another reason
            return
        folder.mkdir()
        for number, kept in self._batches:
            kept.write(folder / f"batch-{number}.safetensors")
        self._ring.save(folder, last, because, other_arrays())
        steps = [number for number, _ in self._batches]
        record = f"{self._folder.name}/{folder.name}"
        self.tell("flight", at=last, because=because, record=record, first=first, batches=steps)

    def close_file(self) -> None:
        """What is in it stays: whoever ends the run knows whether it still matters."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None


def _tensors(steps: Sequence[OpenStep]) -> dict[str, torch.Tensor]:
    return {f"{i}/{name}": tensor for i, s in enumerate(steps) for name, tensor in s.tensors().items()}
