"""What the parameters were before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import dense, local, measurable
from stabdiag.core.tier import Tier
from stabdiag.stats.sample import strided

SAMPLE = 65536
STATISTICS = ("absmax", "rms", "zeros", "nonfinite")


@probe
class InitialProbe(Probe):
    """Kind `initial`, a site a parameter, in one row: before the first step that any optimizer makes.

    absmax     of all elements
    rms        of up to 65,536 evenly spaced ones
    zeros      share of exact zeros among these
    nonfinite  1 where any element is not finite
    """

    id = "initial"
    tier = Tier.NONE

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._parameters: list[torch.Tensor] = []
        self._measured: list[torch.Tensor] = []
        self._done = False

    def on_step_begin(self, optimizer: torch.optim.Optimizer, indices: Sequence[int]) -> None:
        if self._done:
            return
        self._done = True
        for parameter in self.subject.parameters:
            values = measurable(parameter) if dense(local(parameter)) else None
            if values is not None:
                self._parameters.append(parameter)
                self._measured.append(_statistics(values))

    def harvest(self) -> Harvest | None:
        if not self._measured:
            return None
        measured, self._measured = self._measured, []
        rows = torch.stack([row.to(measured[0].device) for row in measured])
        return Harvest({"rows": rows}, self._finish)

    def _finish(self, arrays: Arrays, _scale: float) -> Measured:
        """Only now is it known in which order the modules run."""
        indices, self._parameters = self.subject.indices(self._parameters), []
        if len(indices) < len(arrays["rows"]):
            return Measured()  # the model has changed meanwhile
        sites = [replace(self.subject.sites[i], kind="initial") for i in indices]
        absmax, rms, zeros = arrays["rows"].T
        values = (absmax, rms, zeros, (~np.isfinite(absmax)).astype(np.float32))
        return Measured([Row("initial", sites, dict(zip(STATISTICS, values, strict=True)))])


def _statistics(values: torch.Tensor) -> torch.Tensor:
    """absmax (NaN where any element is), rms and share of zeros: float32 [3]."""
    sample = strided(values, SAMPLE).float()
    wide = torch.promote_types(values.dtype, torch.float32)
    absmax = torch.linalg.vector_norm(values, float("inf"), dtype=wide).float()
    return torch.stack([absmax, sample.square().mean().sqrt(), (sample == 0).float().mean()])
