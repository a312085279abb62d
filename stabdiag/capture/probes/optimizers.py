"""What the state of the optimizer says of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import dense, local
from stabdiag.capture.tier import Tier
from stabdiag.core.site import Site
from stabdiag.stats.adam import STATISTICS, adam_statistics
from stabdiag.stats.sample import slabs

SAMPLE = 4096
KNOWN = (torch.optim.Adam, torch.optim.NAdam, torch.optim.RAdam, torch.optim.SGD)
UNKNOWN = "its state is not one that is known"


@probe
class OptimizerProbe(Probe):
    """Kind `optimizer`, a site a parameter.

    rms        RMS_t of Adam's family: the gradient, as the optimizer saw it, against its second moment
    eps_share  share of coordinates where the root of the second moment is below epsilon
    step       root mean square of the update, in learning rates, without weight decay
    cosine     of the gradient with the first moment
    momentum   norm of the first moment, or of SGD's momentum buffer

    Of tensors above 4,096 elements as many are looked at, in 64 slabs. Adam's family is told by the
    optimizer's class being torch's own and its state; of others nothing is guessed, and the coverage
    says so.
    """

    id = "optimizer"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._sites: list[Site] = []
        self._taken: list[tuple[int, torch.Tensor]] = []
        self._told: set[str] = set()

    def on_change(self) -> None:
        self._sites = [replace(site, kind="optimizer") for site in self.subject.sites]

    def on_step_end(self, optimizer: torch.optim.Optimizer | None, indices: Sequence[int]) -> None:
        if optimizer is None:
            return
        wanted = {id(self.subject.parameters[i]): i for i in indices}
        known = isinstance(optimizer, KNOWN)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                index = wanted.get(id(parameter))
                if index is None or parameter.grad is None:
                    continue
                measured = _measure(optimizer, parameter, group)
                if measured is not None:
                    self._taken.append((index, measured))
        name = type(optimizer).__name__
        if indices and not known and name not in self._told:
            self._told.add(name)
            self.subject.event("coverage", what=f"the optimizer {name}", because=UNKNOWN)

    def harvest(self) -> Harvest | None:
        taken, self._taken = self._taken, []
        if not taken:
            return None
        rows = torch.stack([values.to(taken[0][1].device) for _, values in taken])
        return Harvest({"rows": rows}, partial(self._finish, [index for index, _ in taken]))

    def _finish(self, indices: list[int], arrays: Arrays, _scale: float) -> Measured:
        block = np.full((len(STATISTICS) + 1, len(self._sites)), np.nan, np.float32)
        block[:-1, indices] = arrays["rows"].T
        momentum = arrays["rows"][:, STATISTICS.index("momentum")]
        block[-1, indices] = ~np.isfinite(momentum)
        columns = dict(zip((*STATISTICS, "nonfinite"), block, strict=True))
        return Measured([Row("optimizer", self._sites, columns)])


def _measure(
    optimizer: torch.optim.Optimizer, parameter: torch.Tensor, group: Mapping[str, Any]
) -> torch.Tensor | None:
    """The five statistics, NaN where the optimizer has no such thing; None where it has none of them."""
    state = optimizer.state.get(parameter) or {}
    if isinstance(optimizer, torch.optim.Adam | torch.optim.NAdam | torch.optim.RAdam):
        parts = _parts(parameter.grad, state.get("exp_avg"), state.get("exp_avg_sq"))
        if parts is None or "step" not in state:
            return None
        count = state["step"]
        count = count.to(parts[0].device, torch.float32) if isinstance(count, torch.Tensor) else count
        gradient, first, second = parts
        values = adam_statistics(gradient, first, second, count, _pair(group["betas"]), float(group["eps"]))
        if not isinstance(optimizer, torch.optim.Adam):
            values[STATISTICS.index("step")] = float("nan")  # they weigh the moments in their own ways
        values[STATISTICS.index("momentum")] *= _scale(parameter, gradient)
        return values
    buffer = state.get("momentum_buffer") if isinstance(optimizer, torch.optim.SGD) else None
    parts = _parts(parameter.grad, buffer)
    if parts is None:
        return None
    gradient, momentum = (part.to(torch.float32).flatten() for part in parts)
    values = torch.full((len(STATISTICS),), float("nan"), device=gradient.device)
    size = gradient.norm() * momentum.norm()
    tiny = torch.finfo(torch.float32).tiny
    values[STATISTICS.index("cosine")] = torch.dot(gradient, momentum) / size.clamp(min=tiny)
    values[STATISTICS.index("momentum")] = momentum.norm() * _scale(parameter, momentum)
    return values


def _scale(parameter: torch.Tensor, sample: torch.Tensor) -> float:
    """By which the norm of a sample becomes that of the whole."""
    return float((local(parameter).numel() / sample.numel()) ** 0.5)


def _pair(betas: Sequence[Any]) -> tuple[float, float]:
    return float(betas[0]), float(betas[1])


def _parts(*tensors: torch.Tensor | None) -> list[torch.Tensor] | None:
    """The same sample of each; None where one is missing, or not a plain tensor of the same shape."""
    held = [local(t).detach() for t in tensors if isinstance(t, torch.Tensor)]
    same = len(held) == len(tensors) and all(t.shape == held[0].shape for t in held)
    plain = same and all(dense(t) and t.is_floating_point() and t.numel() for t in held)
    if not plain:
        return None
    return [slabs(t.contiguous(), SAMPLE) for t in held]
