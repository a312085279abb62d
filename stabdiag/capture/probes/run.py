"""The numbers of a step as a whole: loss, learning rates, batch size, time, memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from stabdiag.capture.clipping import Clip
from stabdiag.capture.placement import agreed
from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import dense, tensors_in
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier

MOST_GROUPS = 17
MEMORY_EVERY = 8
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


def resident_mib() -> float:
    """Memory of the process, where the system tells it."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as statm:  # noqa: PTH123 - five times as fast
            return int(statm.read().split()[1]) * PAGE_MIB
    except OSError:
        return float("nan")


def memory_mib() -> dict[str, float]:
    resident = resident_mib()
    if not torch.cuda.is_available():
        return {"memory": resident, "resident": resident}
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    return {"memory": allocated / 2**20, "reserved": reserved / 2**20, "resident": resident}


@probe
class RunProbe(Probe):
    """Kind `run`. Its first site is the run itself; further ones are one a parameter group, sixteen at most:
    an optimizer a parameter would otherwise bury the rest.

    loss           unscaled, summed over micro-batches
    lr             learning rate of the group
    loss_scale     of the gradient scaler
    micro_batches  backward passes
    samples        rows of the batch
    tokens         of the batch, where it is a table of integers
    step_time      seconds since the end of the step before
    memory         MiB allocated on the accelerator, else of the process; from the fast tier on, and at every
                   eighth step
    reserved       MiB that the accelerator's allocator holds
    resident       MiB of the process
    nonfinite      non-finite losses
    """

    id = "run"
    tier = Tier.NONE
    scalars = (
        "loss",
        "lr",
        "loss_scale",
        "micro_batches",
        "samples",
        "tokens",
        "step_time",
        "memory",
        "reserved",
        "resident",
        "nonfinite",
    )

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._losses: list[torch.Tensor] = []
        self._of_optimizer: dict[int, slice] = {}
        self._assigned = 0
        self._rates: dict[tuple[int, int], float] = {}
        self._groups: dict[tuple[int, int], str] = {}
        self._scale: torch.Tensor | None = None
        self._began = perf_counter()
        self._stepping = False
        self._evaluations = 0
        self._tokens = 0
        self._rows = 0
        self._clip: tuple[float, torch.Tensor] | None = None
        self._tier = Tier.NONE
        self._sites: tuple[Site, ...] = ()

    def arm(self, tier: Tier) -> None:
        self._tier = tier

    def on_call(
        self, prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        tensors = (tensor for value in (*args, *kwargs.values()) for _, tensor in tensors_in(value, depth=2))
        first = next(
            (tensor for tensor in tensors if dense(tensor) and tensor.dim() and tensor.numel()), None
        )
        if first is not None:
            self.subject.samples += first.shape[0]
            if first.dim() == 2 and not first.is_floating_point():
                self._tokens += first.numel()

    def on_backward_begin(self, roots: Sequence[torch.Tensor], scale: torch.Tensor | None) -> None:
        """The loss is the sum of the roots, where all are scalars."""
        self._evaluations += 1
        if self._stepping and self._evaluations > 1:
            return  # a closure may evaluate the loss many times: the first counts
        if not roots or any(root.numel() != 1 or root.is_complex() for root in roots):
            return
        values = [agreed(root.detach()) for root in roots]
        parts = [value.to(torch.float32).reshape(()) for value in values if value is not None]
        if len(parts) < len(roots):
            return
        loss = parts[0] if len(parts) == 1 else torch.stack([p.to(parts[0].device) for p in parts]).sum()
        self._scale = None if scale is None else scale.detach().clone()  # update() changes it in place
        self._losses.append(loss if scale is None else loss / scale.to(loss.device))

    def on_clip(self, clip: Clip) -> None:
        whole = self._tier < Tier.FAST and len(clip.parameters) >= len(self.subject.primary)
        total = agreed(clip.total.detach()) if whole else None
        self._clip = None if total is None else (clip.max_norm, total)

    def on_step_begin(self, optimizer: torch.optim.Optimizer, indices: Sequence[int]) -> None:
        self._stepping = True
        self._evaluations = 0

    def on_step_end(self, optimizer: torch.optim.Optimizer | None, indices: Sequence[int]) -> None:
        """The optimizer has stepped on the losses since the last step of any."""
        self._stepping = False
        if optimizer is None:
            return
        index = self.subject.optimizers[optimizer]
        self._of_optimizer[index] = slice(self._assigned, len(self._losses))
        self._assigned = len(self._losses)
        for number, group in enumerate(optimizer.param_groups):
            self._groups.setdefault((index, number), f"{type(optimizer).__name__}.{index}.{number}")
            self._rates[index, number] = float(group.get("lr", float("nan")))

    def harvest(self) -> Harvest:
        tensors: dict[str, torch.Tensor] = {}
        # Where an optimizer has stepped, losses since then are of a step that is yet to come.
        end = self._assigned or len(self._losses)
        losses, later = self._losses[:end], self._losses[end:]
        if losses:
            tensors["losses"] = torch.stack([t.to(losses[0].device) for t in losses])
        if self._scale is not None:
            tensors["scale"] = self._scale
        limit = None
        if self._clip is not None:
            limit, tensors["total"] = self._clip
        now = perf_counter()
        host = {
            "micro_batches": float(len(losses)),
            "samples": float(self.subject.samples),
            "tokens": float(self._tokens),
            "step_time": now - self._began,
        }
        self._rows += 1
        if self._tier >= Tier.FAST or self._rows % MEMORY_EVERY == 0:
            host |= memory_mib()
        slices, rates, groups = dict(self._of_optimizer), dict(self._rates), dict(self._groups)
        self._losses, self._of_optimizer, self._assigned, self._began = later, {}, 0, now
        self.subject.samples = self._tokens = 0
        self._clip = None
        return Harvest(tensors, partial(self._finish, host, limit, slices, rates, groups))

    def _finish(
        self,
        host: dict[str, float],
        limit: float | None,
        slices: dict[int, slice],
        rates: dict[tuple[int, int], float],
        groups: dict[tuple[int, int], str],
        arrays: Arrays,
        scale: float,
    ) -> Measured:
        scalars = dict(host)
        losses = arrays.get("losses", np.zeros(0, np.float32))
        if losses.size:
            scalars["loss"] = float(losses.sum())
            scalars["nonfinite"] = float((~np.isfinite(losses)).sum())
        if "scale" in arrays:
            scalars["loss_scale"] = scale
        if limit is not None:
            total = scalars["grad_norm"] = float(arrays["total"])
            scalars["clipped_grad_norm"] = total * min(1.0, limit / (total + 1e-6))
        extra: dict[str, dict[str, float]] = {}
        for (index, number), name in list(groups.items())[1:MOST_GROUPS]:
            extra[name] = {"lr": rates.get((index, number), float("nan"))}
            if index in slices and number == 0 and len({i for i, _ in groups}) > 1:
                extra[name]["loss"] = float(losses[slices[index]].sum())
        if groups:
            scalars["lr"] = rates.get(next(iter(groups)), float("nan"))
        return Measured([self._row(extra)], scalars)

    def _row(self, groups: dict[str, dict[str, float]]) -> Row:
        if len(self._sites) != 1 + len(groups):
            self._sites = (Site("run", "run"), *(Site("run", name) for name in groups))
        if not groups:
            return Row("run", self._sites, {})
        columns = {name: np.full(len(self._sites), np.nan, np.float32) for name in ("loss", "lr")}
        for position, values in enumerate(groups.values(), start=1):
            for name, value in values.items():
                columns[name][position] = value
        return Row("run", self._sites, columns)
