"""Up to which curvature the optimizer in use is stable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stabdiag.stats.real import real

ADAM = (torch.optim.Adam, torch.optim.AdamW)


@dataclass(frozen=True)
class StabilityLimit:
    """On a quadratic loss of Hessian H the optimizer diverges where lr · λ_max(S^½ H S^½) > `bound`.

    `lr` is the largest learning rate of its groups. `scale` is the diagonal S, a part each parameter, as a
    number or a tensor of its shape (of a complex one, that of its parts): 1/(√v̂ + ε) of an adaptive
    optimizer, else 1, times the share of the group's learning rate in `lr`; 0 for a parameter that has no
    gradient, and for coordinates of which it was always zero.

    Not counted are decoupled weight decay (which adds its factor to λ: 0.1 against curvatures in the
    hundreds), weight decay of the gradient (it adds to H itself), and clipping, which shortens the steps:
    what is said to be unstable by less than these may not be.
    """

    bound: float
    lr: float
    scale: Sequence[torch.Tensor | float]
    adaptive: bool

    @property
    def uniform(self) -> bool:
        """Whether S is the identity."""
        return not self.adaptive and all(part == 1.0 for part in self.scale)

    def root(self, parameters: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor | None:
        """S^½ of these parameters, side by side [n]; None where it is the identity."""
        if self.uniform:
            return None
        parts = [
            scale.to(dtype).sqrt().reshape(-1)
            if isinstance(scale, torch.Tensor)
            else torch.full((real(p).numel(),), scale**0.5, dtype=dtype, device=p.device)
            for scale, p in zip(self.scale, parameters, strict=True)
        ]
        return torch.cat(parts)


def stability_limit(
    optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]
) -> StabilityLimit | None:
    """Of the step that torch's own SGD, Adam, AdamW, RMSprop or Adagrad is about to take with the gradients
    of these parameters of it, which go into its second moments. None for what is not known: other
    optimizers, subclasses, groups of different momentum, numbers that lie on an accelerator.

    Bounds from the characteristic polynomial of the update at an eigenvalue of −1: 2 for gradient descent,
    2(1+β) with heavy-ball momentum (over 1−τ with dampening τ), 2(1+β)/(1+2β) with Nesterov's, and
    (2+2β₁)/(1−β₁) for Adam (Cohen et al., arXiv 2207.14484).
    """
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    if not parameters or any(id(p) not in groups for p in parameters):
        return None
    own = [groups[id(p)] for p in parameters]
    bounds = {_bound(optimizer, group) for group in own}
    rates = [rate for group in own if (rate := _number(group["lr"])) is not None]
    bound = bounds.pop() if len(bounds) == 1 else None
    if bound is None or len(rates) < len(own):
        return None
    highest = max(rates)
    shares = [rate / highest if highest > 0 else 1.0 for rate in rates]
    scale = [
        share / _denominator(optimizer, parameter, group) if parameter.grad is not None else 0.0
        for parameter, group, share in zip(parameters, own, shares, strict=True)
    ]
    return StabilityLimit(bound, highest, scale, type(optimizer) is not torch.optim.SGD)


def _number(value: Any) -> float | None:
    """None for one that lies on an accelerator: to read it would be to wait."""
    if isinstance(value, torch.Tensor) and value.device.type != "cpu":
        return None
    return float(value)


def _bound(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> float | None:
    if group.get("maximize"):
        return None
    kind = type(optimizer)
    if kind in ADAM:
        beta = _number(group["betas"][0])
        return None if beta is None else (2 + 2 * beta) / (1 - beta)
    if kind is torch.optim.Adagrad:
        return 2.0
    if kind is torch.optim.RMSprop:
        return None if group["centered"] else 2 * (1 + float(group["momentum"]))
    if kind is torch.optim.SGD:
        beta = float(group["momentum"])
        if group["nesterov"]:
            return 2 * (1 + beta) / (1 + 2 * beta)
        return 2 * (1 + beta) / (1 - float(group["dampening"])) if beta else 2.0
    return None


def _denominator(
    optimizer: torch.optim.Optimizer, parameter: torch.Tensor, group: Mapping[str, Any]
) -> torch.Tensor | float:
    """By what the coming step will divide the gradient, elementwise."""
    kind = type(optimizer)
    if kind is torch.optim.SGD:
        return 1.0
    held = optimizer.state.get(parameter) or {}
    state = {key: real(one) if isinstance(one, torch.Tensor) else one for key, one in held.items()}
    square = _gradient(optimizer, parameter, group).square()
    eps = float(group["eps"])
    count = state.get("step", 0) + 1  # a number, or a tensor where the optimizer keeps it
    if kind in ADAM:
        beta = group["betas"][1]
        second = state.get("exp_avg_sq", 0.0) * beta + square * (1 - beta)
        if group["amsgrad"] and "max_exp_avg_sq" in state:
            second = torch.maximum(second, state["max_exp_avg_sq"])
        return _plus((second / _on(second, 1 - beta**count)).sqrt(), eps)
    if kind is torch.optim.RMSprop:
        mean: torch.Tensor = state.get("square_avg", 0.0) * group["alpha"] + square * (1 - group["alpha"])
        return _plus(mean.sqrt(), eps)
    total: torch.Tensor = state.get("sum", group["initial_accumulator_value"]) + square
    slowed: torch.Tensor = _plus(total.sqrt(), eps) * _on(total, 1 + (count - 1) * group["lr_decay"])
    return slowed


def _plus(root: torch.Tensor, eps: float) -> torch.Tensor:
    """Infinite at zero, which only coordinates have that the loss does not depend on: dividing by eps would
    make the rounding of a product the largest number in it."""
    return (root + eps).masked_fill_(root == 0, float("inf"))


def _gradient(
    optimizer: torch.optim.Optimizer, parameter: torch.Tensor, group: Mapping[str, Any]
) -> torch.Tensor:
    """As the optimizer will use it: without a scaler's factor, with weight decay where that is part of it.
    Torch's optimizers take a complex number for two real ones."""
    gradient = parameter.grad
    assert gradient is not None
    gradient = real(gradient.detach())
    gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    scale = getattr(optimizer, "grad_scale", None)
    if scale is not None:
        gradient = gradient / scale
    decoupled = type(optimizer) is torch.optim.AdamW or group.get("decoupled_weight_decay", False)
    return gradient if decoupled else gradient + group["weight_decay"] * real(parameter.detach())


def _on(tensor: torch.Tensor, number: Any) -> Any:
    return number.to(tensor.device) if isinstance(number, torch.Tensor) else number
