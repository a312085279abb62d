"""What goes into the model: ranges of floating inputs, fingerprints of all, and how many samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.guard import Guard
from stabdiag.capture.hooks import before_forward
from stabdiag.capture.partials import LogHarvest, PartialLog
from stabdiag.capture.row import Arrays, Harvest, Measured, Row, under
from stabdiag.capture.tensors import dense, in_transform, measurable, tensors_in, type_name
from stabdiag.core.site import Site
from stabdiag.stats.fingerprint import BITS, fingerprint
from stabdiag.stats.moments import Moments


def _parameter_names(module: nn.Module) -> Sequence[str]:
    code = getattr(type(module).forward, "__code__", None)
    return code.co_varnames[1 : code.co_argcount] if code else ()


class BatchProbe:
    """Kind `batch`, at every step, at the modules given to `watch`: those that the script itself calls.

    An input is named as the module's `forward` names it, with the module's prefix where there is one.
    Micro-batches merge; their fingerprints add up, so that their order does not matter.
    `before_call` is called before each training call.
    """

    name = "batch"

    def __init__(self, guard: Guard, before_call: Callable[[], None]) -> None:
        self._guard = guard
        self._before_call = before_call
        self._handles: list[RemovableHandle] = []
        self._index: dict[str, int] = {}
        self._sites: list[Site] = []
        self._log = PartialLog(Moments())
        self._prints: list[tuple[int, torch.Tensor]] = []
        self._samples = 0
        self._tokens = 0

    def watch(self, modules: dict[str, tuple[nn.Module, nn.Module]]) -> None:
        """Prefix -> the module whose inputs are meant, and the one that is called: itself or its wrapper.
        Replaces what was watched."""
        for handle in self._handles:
            handle.remove()
        self._handles = [
            before_forward(called, partial(self._on_call, prefix, module), kwargs=True)
            for prefix, (module, called) in modules.items()
        ]

    def arm(self) -> None:
        """All of it is taken at every step."""

    def _on_call(
        self,
        prefix: str,
        module: nn.Module,
        _called: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if torch.is_grad_enabled() and not in_transform():
            self._before_call()
            self._guard(self.name, self.add_inputs, prefix, module, args, kwargs)

    def add_inputs(
        self, prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """The inputs of one call."""
        names = _parameter_names(module)
        named = {names[i] if i < len(names) else f"[{i}]": value for i, value in enumerate(args)}
        first = True
        for name, value in {**named, **kwargs}.items():
            for path, tensor in tensors_in(value, depth=2):
                if tensor.numel() and dense(tensor):
                    self._add(f"{prefix}{name}{path}", tensor)
                    if first and tensor.dim():
                        first = False
                        self._count(tensor)

    def _count(self, tensor: torch.Tensor) -> None:
        self._samples += tensor.shape[0]
        if tensor.dim() == 2 and not tensor.is_floating_point():
            self._tokens += tensor.numel()

    def _add(self, name: str, tensor: torch.Tensor) -> None:
        site = self._index.setdefault(name, len(self._sites))
        if site == len(self._sites):
            self._sites.append(
                Site("batch", name, shape=tuple(tensor.shape), dtype=type_name(tensor), order=site)
            )
        self._prints.append((site, fingerprint(tensor)))
        values = measurable(tensor)
        if values is not None:
            self._log.add(site, values)

    @property
    def samples(self) -> int:
        """Rows of the batch that went in since the last harvest, or tokens where those are known."""
        return self._tokens or self._samples

    def harvest(self) -> Harvest:
        ranges = self._log.harvest()
        tensors = {f"range:{device}": rows for device, rows in ranges.rows.items()}
        if self._prints:
            device = self._prints[0][1].device
            tensors["prints"] = torch.stack([p.to(device) for _, p in self._prints])
        owners = [site for site, _ in self._prints]
        counts = {"samples": float(self._samples), "tokens": float(self._tokens)} if self._prints else {}
        finish = partial(self._finish, ranges, owners, counts, tuple(self._sites))
        self._prints, self._samples, self._tokens = [], 0, 0
        return Harvest(tensors, finish)

    def _finish(
        self,
        ranges: LogHarvest,
        owners: list[int],
        counts: dict[str, float],
        sites: tuple[Site, ...],
        arrays: Arrays,
        _scale: float,
    ) -> Measured:
        if not owners:
            return Measured()
        columns = ranges.columns(under("range:", arrays), len(sites))
        for name in ("zeros", "norm"):
            del columns[name]
        sums = np.full(len(sites), np.nan, np.float64)
        for owner, value in zip(owners, arrays["prints"].tolist(), strict=True):
            sums[owner] = value if np.isnan(sums[owner]) else (sums[owner] + value) % 2**BITS
        columns["fingerprint"] = sums.astype(np.float32)
        return Measured([Row("batch", sites, columns)], counts)
