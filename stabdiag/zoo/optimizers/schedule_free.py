"""AdamW without a schedule: the weights are an average of a faster sequence (Defazio et al. 2024, arXiv
2405.15682)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from stabdiag.zoo.optimizer import optimizer


class ScheduleFree(torch.optim.Optimizer):
    """Parameters hold y = (1 - beta) z + beta x, at which gradients are taken."""

    def __init__(self, params: Iterable[Any], lr: float, beta: float = 0.9, beta2: float = 0.99) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "beta2": beta2, "eps": 1e-8, "steps": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["steps"] += 1
            share = 1 / group["steps"]
            beta = group["beta"]
            correction = 1 - group["beta2"] ** group["steps"]
            for y in group["params"]:
                if y.grad is None:
                    continue
                state = self.state[y]
                if not state:
                    state.update(z=y.clone(), squares=torch.zeros_like(y))
                z, squares = state["z"], state["squares"]
                squares.lerp_(y.grad.square(), 1 - group["beta2"])
                x = (y - (1 - beta) * z) / beta
                z.addcdiv_(y.grad, (squares / correction).sqrt_().add_(group["eps"]), value=-group["lr"])
                x.lerp_(z, share)
                y.copy_(torch.lerp(z, x, beta))


@optimizer("schedule-free")
def make(parameters: Sequence[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return ScheduleFree(parameters, lr)
