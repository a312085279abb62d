"""The numbers of a step as a whole: loss, learning rates, time, memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch

from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.core.site import Site

STATISTICS = (
    "loss",
    "lr",
    "grad_norm",
    "clipped_grad_norm",
    "loss_scale",
    "skipped",
    "micro_batches",
    "samples",
    "tokens",
    "step_time",
    "memory",
    "overhead",
    "grad_carryover",
    "nonfinite",
)
MOST_GROUPS = 17
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


def memory_mib() -> float:
    """Allocated memory of the accelerator, else the resident memory of the process."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() / 2**20
    try:
        with open("/proc/self/statm", "rb", buffering=0) as statm:  # noqa: PTH123 - five times as fast
            return int(statm.read().split()[1]) * PAGE_MIB
    except OSError:
        return float("nan")


class ScalarProbe:
    """Kind `run`. Its first site is the run itself; further ones are one a parameter group, sixteen at most:
    an optimizer a parameter would otherwise bury the rest."""

    name = "run"

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._of_optimizer: dict[int, slice] = {}
        self._assigned = 0
        self._rates: dict[tuple[int, int], float] = {}
        self._groups: dict[tuple[int, int], str] = {}
        self._scale: torch.Tensor | None = None
        self._began = perf_counter()
        self._last_norm = float("nan")

    def arm(self) -> None:
        """All of it is taken at every step."""

    def add_loss(self, roots: Iterable[torch.Tensor], scale: torch.Tensor | None) -> None:
        """The roots of a backward pass; the loss is their sum where all are scalars."""
        roots = list(roots)
        if any(root.numel() != 1 or root.is_complex() for root in roots):
            return
        parts = [root.detach().to(torch.float32).reshape(()) for root in roots]
        loss = torch.stack([p.to(parts[0].device) for p in parts]).sum()
        self._scale = None if scale is None else scale.detach().clone()  # update() changes it in place
        self._losses.append(loss if scale is None else loss / scale.to(loss.device))

    def after_step(self, index: int, optimizer: torch.optim.Optimizer) -> None:
        """Optimizer number `index` has stepped, on the losses since the last step of any."""
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
        now = perf_counter()
        host = {
            "micro_batches": float(len(losses)),
            "step_time": now - self._began,
            "memory": memory_mib(),
        }
        slices, rates, groups = dict(self._of_optimizer), dict(self._rates), dict(self._groups)
        self._losses, self._of_optimizer, self._assigned, self._began = later, {}, 0, now
        return Harvest(tensors, partial(self._finish, host, slices, rates, groups))

    def _finish(
        self,
        host: dict[str, float],
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
        extra: dict[str, dict[str, float]] = {}
        for (index, number), name in list(groups.items())[1:MOST_GROUPS]:
            extra[name] = {"lr": rates.get((index, number), float("nan"))}
            if index in slices and number == 0 and len({i for i, _ in groups}) > 1:
                extra[name]["loss"] = float(losses[slices[index]].sum())
        if groups:
            scalars["lr"] = rates.get(next(iter(groups)), float("nan"))
        return Measured([_row(extra)], scalars)

    def complete(self, row: Row, scalars: dict[str, Any]) -> Row:
        """`row` with the numbers of all probes in the place of the run itself."""
        carried = scalars.pop("carried", None)
        if carried is not None and self._last_norm > 0:
            scalars["grad_carryover"] = carried / self._last_norm
        self._last_norm = scalars.get("clipped_grad_norm", float("nan"))
        for name, value in scalars.items():
            row.columns[name][0] = value
        return row


def _row(groups: dict[str, dict[str, float]]) -> Row:
    sites: Sequence[Site] = [Site("run", "run"), *(Site("run", name) for name in groups)]
    columns = {name: np.full(len(sites), np.nan, np.float32) for name in STATISTICS}
    for position, values in enumerate(groups.values(), start=1):
        for name, value in values.items():
            columns[name][position] = value
    return Row("run", sites, columns)
