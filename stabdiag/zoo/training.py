"""A training laid open: an ordinary loop, of which a fault may change any part before it begins or at any
step."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Batch = tuple[Tensor, ...]
Batches = Callable[[int], Batch]
Loss = Callable[[Batch], Tensor]
Hook = Callable[[int], None]
MakeOptimizer = Callable[[Sequence[nn.Parameter], float], Optimizer]


@dataclass
class Objective:
    """A loss, and the module whose parameters descend it."""

    module: nn.Module
    loss: Loss


@dataclass
class Parts:
    """What an architecture consists of. `batches` gives the i-th batch to train with, a function of i alone,
    `held_out` the i-th of those to evaluate with; `blocks` are the names of the modules that make up its
    depth, from the input on."""

    model: nn.Module
    objectives: list[Objective]
    batches: Batches
    held_out: Batches
    blocks: tuple[str, ...]


@dataclass
class Training:
    """Parts, and how they are trained. `lr` is reached after `warmup` steps and falls along half a cosine to
    `final` of it. `before` and `after` are called with the number of the step, around it. `recipe` are the
    architecture and the arguments that it was made of."""

    parts: Parts
    make_optimizer: MakeOptimizer
    lr: float
    steps: int
    warmup: int
    clip: float
    seed: int
    recipe: Mapping[str, Any] = field(default_factory=dict)
    rank: int = 0
    final: float = 0.1
    accumulate: int = 1
    evaluate_every: int = 0
    autocast: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None
    before: list[Hook] = field(default_factory=list)
    after: list[Hook] = field(default_factory=list)
    left_out: set[nn.Parameter] = field(default_factory=set)
    optimizers: list[Optimizer] = field(default_factory=list)
    zero_grad: Callable[[Optimizer], None] = Optimizer.zero_grad
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.rate: Callable[[int], float] = self.scheduled

    @property
    def model(self) -> nn.Module:
        return self.parts.model

    @property
    def loss(self) -> Loss:
        """That of the first objective; setting it replaces that one."""
        return self.parts.objectives[0].loss

    @loss.setter
    def loss(self, loss: Loss) -> None:
        self.parts.objectives[0].loss = loss

    def scheduled(self, step: int) -> float:
        """The learning rate at `step`: linear warm-up, then half a cosine."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.steps - 1 - self.warmup))
        return self.lr * (self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2)

    def prepare(self) -> None:
        """Makes the optimizers, of all trainable parameters that are not left out."""
        for objective in self.parts.objectives:
            wanted = (p for p in objective.module.parameters() if p.requires_grad)
            self.optimizers.append(
                self.make_optimizer([p for p in wanted if p not in self.left_out], self.lr)
            )

    def run(
        self, tell: Callable[[int, float], None] = lambda step, loss: None, steps: range | None = None
    ) -> None:
        """All steps, or `steps` where the training is as it was before the first of them."""
        for step in range(self.steps) if steps is None else steps:
            _call(self.before, step)
            rate = self.rate(step)
            loss = 0.0
            for objective, optimizer in zip(self.parts.objectives, self.optimizers, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = rate * group.get("multiplier", 1.0)
                loss = self._update(objective, optimizer, step)
            self.losses.append(loss)
            tell(step, loss)
            _call(self.after, step)
            if self.evaluate_every and (step + 1) % self.evaluate_every == 0:
                self.evaluate()

    def _update(self, objective: Objective, optimizer: Optimizer, step: int) -> float:
        self.zero_grad(optimizer)
        total = 0.0
        for micro in range(self.accumulate):
            batch = self.parts.batches(step * self.accumulate + micro)
            with torch.autocast("cpu", self.autocast, enabled=self.autocast is not None):
                loss = objective.loss(batch) / self.accumulate
            (self.scaler.scale(loss) if self.scaler else loss).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        if self.scaler:
            self.scaler.unscale_(optimizer)
        if self.clip:
            held = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(held, self.clip)
        if self.scaler:
            self.scaler.step(optimizer)
            self.scaler.update()
        else:
            optimizer.step()
        return total

    @torch.no_grad()
    def evaluate(self, batches: int = 4) -> float:
        """The mean loss of the first objective over the first held-out batches, always the same ones."""
        self.model.eval()
        losses = [float(self.loss(self.parts.held_out(i))) for i in range(batches)]
        self.model.train()
        return sum(losses) / len(losses)


def _call(hooks: Iterable[Hook], step: int) -> None:
    for hook in hooks:
        hook(step)
