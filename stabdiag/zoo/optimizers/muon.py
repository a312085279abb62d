"""Muon: the momentum of each matrix made orthogonal (Jordan et al. 2024), and Adam for what is no matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stabdiag.zoo.optimizer import optimizer

SLOWER = 0.3
"""Learning rate of Adam's part over that of the matrices."""


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """Near its orthogonal factor, by five steps of a quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-7)
    tall = len(x) > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x.T if tall else x
    return result


class Muon(torch.optim.Optimizer):
    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.dim() >= 2:
                    buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                    buffer.mul_(group["momentum"]).add_(p.grad)
                    move = orthogonal((p.grad + group["momentum"] * buffer).flatten(1))
                    p.sub_(move.view_as(p) * max(1.0, len(p) / p[0].numel()) ** 0.5, alpha=group["lr"])
                else:
                    self._adam(p, SLOWER * group["lr"])

    def _adam(self, p: Tensor, lr: float) -> None:
        state = self.state[p]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        assert p.grad is not None
        state["step"] += 1
        state["exp_avg"].lerp_(p.grad, 0.1)
        state["exp_avg_sq"].lerp_(p.grad.square(), 0.05)
        first = state["exp_avg"] / (1 - 0.9 ** state["step"])
        second = state["exp_avg_sq"] / (1 - 0.95 ** state["step"])
        p.addcdiv_(first, second.sqrt_().add_(1e-8), value=-lr)


@optimizer("muon", scale=5.0)
def make(parameters: Sequence[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return Muon(parameters, lr)
