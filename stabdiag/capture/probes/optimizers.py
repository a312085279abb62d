"""What the state of the optimizer says of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from stabdiag.capture.optimizer_state import Part, decays, measure, parts
from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import numbers
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.optimizer import STATISTICS, known_optimizer

UNKNOWN = "its state is not one that is known"
MOMENTUM = STATISTICS.index("momentum")


@probe
class OptimizerProbe(Probe):
    """Kind `optimizer`, a site a parameter.

    rms        RMS_t of adaptive optimizers: the gradient, as the optimizer saw it, against its second moment
    eps_share  share of coordinates where epsilon is most of what the step is divided by
    step       root mean square of the update, in learning rates, without decoupled weight decay
    cosine     of the gradient with the first moment
    momentum   norm of the first moment, or of a momentum buffer

    Of tensors above 1,024 elements as many are looked at, in 64 slabs. `stats/optimizers` knows what the
    state of torch's optimizers means; what one of them has not is NaN. Of others nothing is guessed, and the
    coverage says so.
    """

    id = "optimizer"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._sites: list[Site] = []
        self._decays: dict[int, torch.Tensor] = {}
        self._taken: list[tuple[list[int], torch.Tensor]] = []
        self._told: set[str] = set()

    def on_change(self) -> None:
        self._sites = [replace(site, kind="optimizer") for site in self.subject.sites]

    def on_step_begin(self, optimizer: torch.optim.Optimizer, indices: Sequence[int]) -> None:
        known = known_optimizer(optimizer)
        self._decays = decays(known, optimizer, self._wanted(indices)) if known else {}

    def on_step_end(self, optimizer: torch.optim.Optimizer | None, indices: Sequence[int]) -> None:
        added, self._decays = self._decays, {}
        if optimizer is None or not indices:
            return
        known = known_optimizer(optimizer)
        if known is None:
            self._tell_unknown(type(optimizer).__name__)
            return
        batches: dict[tuple[Any, ...], list[Part]] = {}
        for part in parts(known, optimizer, self._wanted(indices), added):
            batches.setdefault(part.alike, []).append(part)
        for alike in batches.values():
            rows = measure(known, alike)
            rows[:, MOMENTUM] *= numbers([part.weight for part in alike], rows.device)
            self._taken.append(([part.place for part in alike], rows))

    def _wanted(self, indices: Sequence[int]) -> dict[int, int]:
        return {id(self.subject.parameters[i]): i for i in indices}

    def _tell_unknown(self, name: str) -> None:
        if name not in self._told:
            self._told.add(name)
            self.subject.event("coverage", what=f"the optimizer {name}", because=UNKNOWN)

    def harvest(self) -> Harvest | None:
        taken, self._taken = self._taken, []
        if not taken:
            return None
        rows = torch.cat([values.to(taken[0][1].device) for _, values in taken])
        return Harvest({"rows": rows}, partial(self._finish, [i for indices, _ in taken for i in indices]))

    def _finish(self, indices: list[int], arrays: Arrays, _scale: float) -> Measured:
        block = np.full((len(STATISTICS) + 1, len(self._sites)), np.nan, np.float32)
        block[:, indices] = arrays["rows"].T
        block[-1, indices] = ~np.isfinite(block[-1, indices])
        columns = dict(zip((*STATISTICS, "nonfinite"), block, strict=True))
        return Measured([Row("optimizer", self._sites, columns)])
