"""How sharply the loss curves, against how sharply the optimizer can bear it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.captured_loss import CapturedLoss
from stabdiag.capture.curvature import STATISTICS, VECTORS, Curvature
from stabdiag.capture.flat_loss import FlatLoss
from stabdiag.capture.hooks import on_forward
from stabdiag.capture.memory import free_bytes
from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.replay import refusal
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import in_transform
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.stability_limit import stability_limit

SITE = Site("curvature", "run")
SAME, SIMILAR = 1e-3, 0.1


@probe
class CurvatureProbe(Probe):
    """Kind `curvature`, of the loss of the step's last micro-batch, times their number.

    lambda_max                 largest eigenvalue of the Hessian H (loss / parameter²)
    lambda_min                 smallest eigenvalue that was met, an upper bound of the smallest there is
    lambda_max_preconditioned  largest eigenvalue of S^½HS^½, for the diagonal S by which the optimizer scales
                               its step: 1/(√v̂+ε) for Adam (1 / learning rate)
    trace                      of H, from three random vectors
    limit                      largest eigenvalue that the optimizer is stable at on a quadratic loss: 2/η,
                               2(1+β)/η, 38/η (1 / learning rate)
    sharpness_ratio            lambda_max_preconditioned / limit
    residual                   ‖Ay − λy‖ of the unit vector y found for the largest eigenvalue λ of this step,
                               as a share of λ: some eigenvalue lies as near

    Each step measures one of them in turn (`Curvature`), just before the optimizer moves: weights, gradients
    and moments are those of the loss then. Where that cannot be computed again, the coverage says why.
    """

    id = "curvature"
    tier = Tier.RARE

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.curvature = Curvature()
        self._handles: list[RemovableHandle] = []
        self._captured: CapturedLoss | None = None
        self._stepping: torch.optim.Optimizer | None = None
        self._taken: Harvest | None = None
        self._told: set[str] = set()

    def arm(self, tier: Tier) -> None:
        if tier < self.tier:
            return
        self._captured = CapturedLoss()
        if self.subject.loss_closure is None:
            for _, called in self.subject.entries.values():
                self._handles.append(on_forward(called, self._on_forward))

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._captured = self._stepping = None

    def on_call(
        self, prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        if self._captured is not None and not self.subject.in_backward():
            self._captured.note_call(module, args, kwargs)

    def _on_forward(self, _module: nn.Module, _args: Any, output: Any) -> None:
        captured = self._captured
        if captured is not None and torch.is_grad_enabled() and not in_transform():
            self.subject.guard(self.id, captured.note_outputs, output)

    def on_backward_begin(self, roots: Sequence[torch.Tensor], scale: torch.Tensor | None) -> None:
        if self._captured is not None:
            self._captured.note_loss(roots, scale)

    def on_backward_end(self) -> None:
        """A closure that the optimizer calls: this is the last time that its weights are those of the loss.
        So it is where there is no optimizer."""
        if self._stepping is not None or not self.subject.optimizers:
            self._look(self._stepping)

    def on_step_begin(self, optimizer: torch.optim.Optimizer, indices: Sequence[int]) -> None:
        if self.subject.in_backward():
            self._skip("the optimizer steps while gradients are still being computed")
        elif self._captured is not None and (self._captured.passes or self.subject.loss_closure):
            self._look(optimizer)
        else:
            self._stepping = optimizer

    def on_step_end(self, optimizer: torch.optim.Optimizer | None, indices: Sequence[int]) -> None:
        if self._captured is not None and optimizer is not None:
            self._skip(self._captured.because or "the optimizer moved before the backward pass had ended")
        self._stepping = None

    def _skip(self, because: str) -> None:
        self._captured = None
        if because not in self._told:
            self._told.add(because)
            self.subject.event("coverage", what="curvature", because=because)

    def _look(self, optimizer: torch.optim.Optimizer | None) -> None:
        captured, self._captured = self._captured, None
        if captured is None:
            return
        found = self._module_and_loss(captured)
        if isinstance(found, str):
            self._skip(found)
            return
        module, compute = found
        parameters = self._parameters(module, optimizer)
        because = refusal(module) or _unfit(parameters)
        if because is not None:
            self._skip(because)
            return
        limit = stability_limit(optimizer, parameters) if optimizer is not None else None
        if limit is None and optimizer is not None:
            self._tell_unknown(type(optimizer).__name__)
        loss = FlatLoss(module, parameters, compute)
        try:
            # What is not the same twice has no curvature; of the step's own loss the value is known.
            value = loss.evaluate() if captured.value is None else captured.value * captured.passes
            turn, tensors = self.curvature.take(loss, limit.root(parameters, loss.dtype) if limit else None)
        except Exception as error:  # the script's own code, under circumstances that it was not made for
            self._skip(f"computing the loss again failed: {type(error).__name__}: {error}")
            return
        tensors["value"] = value
        near = captured.value is not None and (captured.narrow or bool(self.subject.compiled))
        bound = limit.bound / limit.lr if limit is not None and limit.lr > 0 else float("nan")
        plain = limit is not None and limit.uniform
        self._taken = Harvest(tensors, partial(self._finish, turn, bound, plain, SIMILAR if near else SAME))

    def _tell_unknown(self, name: str) -> None:
        what = f"the stability limit of {name}"
        if what not in self._told:
            self._told.add(what)
            self.subject.event("coverage", what=what, because="it is not one that is known")

    def _module_and_loss(self, captured: CapturedLoss) -> tuple[nn.Module, Callable[[], torch.Tensor]] | str:
        closure = self.subject.loss_closure
        if closure is not None:
            roots = list(self.subject.roots.values())
            return (roots[0] if len(roots) == 1 else nn.ModuleList(roots)), closure
        if captured.because is not None:
            return captured.because
        assert captured.call is not None
        again, passes = captured.again(), captured.passes
        return captured.call.module, lambda: again() * passes

    def _parameters(self, module: nn.Module, optimizer: torch.optim.Optimizer | None) -> list[torch.Tensor]:
        own = {id(p): p for p in module.parameters() if p.requires_grad}
        if optimizer is None:
            return list(own.values())
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return [p for key, p in own.items() if key in held]

    def harvest(self) -> Harvest | None:
        taken, self._taken = self._taken, None
        return taken

    def _finish(
        self, turn: str, limit: float, plain: bool, tolerance: float, arrays: Arrays, _scale: float
    ) -> Measured:
        again, value = float(arrays["loss"]), float(arrays["value"])
        if abs(again - value) > tolerance * max(abs(again), abs(value)) + 1e-6:
            self._skip(f"computed again, a loss of {value:.6g} is {again:.6g}")
            return Measured()
        found = self.curvature.read(turn, arrays)
        lost = not found or not np.isfinite([again, *found.values()]).all()
        if plain and "lambda_max" in found:
            found["lambda_max_preconditioned"] = found["lambda_max"]
        found["limit"] = limit
        found["sharpness_ratio"] = found.get("lambda_max_preconditioned", np.nan) / limit
        columns = {name: np.array([found.get(name, np.nan)], np.float32) for name in STATISTICS}
        columns["nonfinite"] = np.array([lost], np.float32)
        return Measured([Row("curvature", (SITE,), columns)])


def _unfit(parameters: Sequence[torch.Tensor]) -> str | None:
    if not parameters:
        return "the optimizer holds no parameter of the model that was called"
    devices = {p.device for p in parameters}
    if len(devices) > 1:
        return "the parameters are on several devices"
    needed = VECTORS * sum(p.numel() * max(p.element_size(), 4) for p in parameters)
    free = free_bytes(devices.pop())
    if free is not None and needed > free / 2:
        return f"its vectors need {needed / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free"
    return None
