"""What an optimizer step changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import local
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.real import real
from stabdiag.stats.sample import slabs

SAMPLE = 16384
TINY = 1e-6
WIDE = 4  # bytes an element


class _Taken(NamedTuple):
    """Of a step: parameters, how many elements of each were compared, the norms of change and weight
    [2, parameters]; those in narrow types, and the share of each that did not change."""

    indices: Sequence[int]
    sampled: list[int]
    norms: torch.Tensor
    narrow: list[int]
    unchanged: torch.Tensor


@probe
class UpdateProbe(Probe):
    """Kind `update`.

    norm       of the change of a step
    ratio      its ratio to the norm of the weight before it
    unchanged  share of coordinates that the step left as they were, of weights in less than 32 bits: what
               was added to these was lost to rounding, unless nothing was

    Tensors of up to 16,384 elements, each part of a complex one counted, are compared whole. Of larger ones
    as many elements are, in 64 slabs, which costs no second copy of the model: the ratio is then an
    estimate, good to a few per cent. A weight that is practically zero (rms below 1e-6) has no ratio.
    """

    id = "update"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._before: list[torch.Tensor] = []
        self._taken: list[_Taken] = []
        self.sites: list[Site] = []

    def on_change(self) -> None:
        self.sites = [replace(site, kind="update") for site in self.subject.sites]

    def _parts(self, indices: Sequence[int]) -> list[torch.Tensor]:
        wholes = (real(local(self.subject.parameters[i]).detach()) for i in indices)
        return [slabs(whole, SAMPLE) for whole in wholes]

    def on_step_begin(self, optimizer: torch.optim.Optimizer, indices: Sequence[int]) -> None:
        if indices:
            self._before = [part.clone() for part in self._parts(indices)]

    def on_step_end(self, optimizer: torch.optim.Optimizer | None, indices: Sequence[int]) -> None:
        if not self._before:
            return
        changes = [new - old for new, old in zip(self._parts(indices), self._before, strict=True)]
        norms = [
            torch.linalg.vector_norm(part, dtype=torch.promote_types(part.dtype, torch.float32))
            for part in [*changes, *self._before]
        ]
        narrow = [
            (i, torch.count_nonzero(change == 0) / change.numel())
            for i, change in zip(indices, changes, strict=True)
            if change.element_size() < WIDE
        ]
        unchanged = torch.stack([share for _, share in narrow]) if narrow else norms[0].new_zeros(0)
        sampled = [part.numel() for part in self._before]
        both = torch.stack(norms).view(2, -1)
        self._taken.append(_Taken(indices, sampled, both, [i for i, _ in narrow], unchanged))
        self._before = []

    def harvest(self) -> Harvest:
        taken, self._taken = self._taken, []
        tensors = {f"norms:{i}": step.norms for i, step in enumerate(taken)}
        tensors |= {f"unchanged:{i}": step.unchanged for i, step in enumerate(taken) if step.narrow}
        return Harvest(tensors, partial(self._finish, taken))

    def _finish(self, taken: list[_Taken], arrays: Arrays, _scale: float) -> Measured:
        if not taken:
            return Measured()
        norm, ratio, unchanged, nonfinite = np.full((4, len(self.sites)), np.nan, np.float32)
        sizes = np.array([real(local(p)).numel() for p in self.subject.parameters], np.float64)
        for i, step in enumerate(taken):
            change, weight = arrays[f"norms:{i}"].astype(np.float64)
            at, sampled = np.array(step.indices), np.array(step.sampled, np.float64)
            whole = np.maximum(sizes[at], sampled)
            weight_rms = weight / np.sqrt(sampled)
            with np.errstate(divide="ignore", invalid="ignore"):
                norm[at] = change * np.sqrt(whole / sampled)
                ratio[at] = np.where(weight_rms < TINY, np.nan, change / weight)
            nonfinite[at] = ~np.isfinite(change)
            if step.narrow:
                unchanged[step.narrow] = arrays[f"unchanged:{i}"]
        columns = {"norm": norm, "ratio": ratio, "nonfinite": nonfinite}
        if not np.isnan(unchanged).all():
            columns["unchanged"] = unchanged
        return Measured([Row("update", self.sites, columns)])
