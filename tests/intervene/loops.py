"""A small training whose loop can be edited by hand, as a fix would be written into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

STEPS = 16
Edit = Callable[[torch.optim.Optimizer, nn.Module, int, float], bool | None]


def nothing(optimizer: torch.optim.Optimizer, model: nn.Module, step: int, loss: float) -> None:
    """An edit of the loop that changes nothing."""


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Two groups, of which one decays."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.03)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """A step in proportion to the gradient, scale and all."""
    return torch.optim.SGD(model.parameters(), lr=1e-4)


def train(
    before: Edit = nothing,
    after: Edit = nothing,
    *,
    make: Callable[[nn.Module], torch.optim.Optimizer] = adamw,
    steps: int = STEPS,
    bad: Sequence[int] = (),
    loud: Sequence[int] = (),
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = F.cross_entropy,
) -> tuple[list[torch.Tensor], list[float], list[float]]:
    """Weights, losses and learning rates, as the script sees them. `before` is what a hand would write before
    `optimizer.step()`, where True leaves the step out, `after` what it would write behind it. The loss of the
    steps `bad` is not finite, that of the steps `loud` a thousand times what it should be."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 8), nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 5))
    optimizer = make(model)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, steps)
    losses, rates = [], []
    for step in range(steps):
        inputs, targets = torch.randint(0, 11, (8, 4)), torch.randint(0, 5, (8,))
        loss = loss_of(model(inputs), targets)
        loss = loss * (float("nan") if step in bad else 1000.0 if step in loud else 1.0)
        optimizer.zero_grad()
        loss.backward()
        if not before(optimizer, model, step, loss.item()):
            optimizer.step()
            after(optimizer, model, step, loss.item())
        scheduler.step()
        losses.append(loss.item())
        rates.append(optimizer.param_groups[0]["lr"])
    return [p.detach().clone() for p in model.parameters()], losses, rates


def same(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    """To the bit."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
