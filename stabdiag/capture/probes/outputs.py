"""Module outputs and the gradients with respect to them."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.hooks import on_forward
from stabdiag.capture.partials import LogHarvest, PartialLog
from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.replay import replaying
from stabdiag.capture.roots import source_of
from stabdiag.capture.row import Arrays, Harvest, Measured, Row, under
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import in_transform, measurable, tensors_in, type_name
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.magnitude import Magnitude
from stabdiag.stats.moments import Moments


class _Seen:
    """The tensor that was measured last, so that a container that returns it repeats its numbers."""

    def __init__(self, tensor: torch.Tensor, row: tuple[torch.device, int], sites: list[int]) -> None:
        self._tensor = weakref.ref(tensor)
        self._version = tensor._version
        self.row = row
        self.sites = sites

    def is_of(self, tensor: torch.Tensor) -> bool:
        """False after an operation in place: same tensor, other values."""
        return self._tensor() is tensor and tensor._version == self._version


@probe
class OutputProbe(Probe):
    """Kinds `output` and `output_grad`.

    The recomputation of a checkpointed module does not count, nor does evaluation: it runs without
    gradients. So does the first pass of a reentrant checkpoint, whose recomputation is then the one that
    is measured.
    """

    id = "output"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._handles: list[RemovableHandle] = []
        self._sites: dict[str, int] = {}
        self._outputs: list[Site] = []
        self._gradients: list[Site] = []
        self._forward = PartialLog(Moments())
        self._gradient = PartialLog(Magnitude())
        self._in_forward: set[str] = set()
        self._last: _Seen | None = None

    def arm(self, tier: Tier) -> None:
        if tier < self.tier:
            return
        self._handles += self.on_shadow(self.subject.modules)

    def on_shadow(self, modules: Mapping[str, nn.Module]) -> list[RemovableHandle]:
        return [on_forward(m, partial(self._on_forward, name)) for name, m in modules.items()]

    def _on_forward(self, name: str, module: nn.Module, _args: Any, output: Any) -> None:
        if (torch.is_grad_enabled() or replaying()) and not in_transform():
            self.subject.guard(self.id, self._on_output, name, module, output)

    def _on_output(self, name: str, module: nn.Module, output: Any) -> None:
        if self.subject.in_backward():
            if name in self._in_forward:
                return
        else:
            self._in_forward.add(name)
        for path, tensor in tensors_in(output):
            self._measure(name + path, module, tensor)

    def _measure(self, name: str, module: nn.Module, tensor: torch.Tensor) -> None:
        values = measurable(tensor)
        if values is None:
            return
        site = self._sites.get(name)
        if site is None:
            site = self._sites[name] = len(self._outputs)
            described = Site(
                "output",
                name,
                module_type=type(module).__name__,
                shape=tuple(tensor.shape),
                dtype=type_name(tensor),
                order=site,
                source=source_of(module),
            )
            self.subject.order.setdefault(name, site)
            self._outputs.append(described)
            self._gradients.append(replace(described, kind="output_grad"))
        if self._last is not None and self._last.is_of(tensor):
            self._forward.repeat(site, self._last.row)
            self._last.sites.append(site)
            return
        self._last = _Seen(tensor, self._forward.add(site, values), sites := [site])
        if tensor.requires_grad and not tensor.is_leaf:  # a hook on a parameter would stay for good
            # Torch warns of hooks on a tensor that is saved, as losses are: this one goes with the step.
            hook = partial(self.subject.guard, self.id, self._on_gradient, sites)
            self._handles.append(tensor.register_hook(hook))  # type: ignore[no-untyped-call]

    def _on_gradient(self, sites: list[int], gradient: torch.Tensor | None) -> None:
        # Torch calls the hook without a gradient where, say, DistributedDataParallel looks for unused ones.
        values = None if gradient is None else measurable(gradient)
        if values is None:
            return
        row = self._gradient.add(sites[0], values)
        for container in sites[1:]:
            self._gradient.repeat(container, row)

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def harvest(self) -> Harvest:
        self.disarm()
        self._in_forward.clear()
        self._last = None
        forward, gradient = self._forward.harvest(), self._gradient.harvest()
        tensors = {f"output:{device}": rows for device, rows in forward.rows.items()}
        tensors |= {f"output_grad:{device}": rows for device, rows in gradient.rows.items()}
        return Harvest(tensors, partial(self._finish, forward, gradient, len(self._outputs)))

    def _finish(
        self, forward: LogHarvest, gradient: LogHarvest, count: int, arrays: Arrays, scale: float
    ) -> Measured:
        if not forward.rows:
            return Measured()
        outputs = forward.columns(under("output:", arrays), count)
        gradients = gradient.columns(under("output_grad:", arrays), count)
        for name in gradients.keys() - {"nonfinite"}:
            gradients[name] /= scale
        return Measured(
            [
                Row("output", self._outputs[:count], outputs),
                Row("output_grad", self._gradients[:count], gradients),
            ]
        )
