"""Architectures in which faults are planted: one file each in `models`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from stabdiag.core.registry import Registry
from stabdiag.zoo.optimizer import OPTIMIZERS
from stabdiag.zoo.training import Parts, Training

Build = Callable[..., Parts]


@dataclass(frozen=True)
class Architecture:
    """`build(seed, batch, **shape)` makes it, with its data. `lr` is a rate at which Adam trains it well,
    `sgd_lr` the same for gradient descent with momentum. `optimizers` are the traits of those that train it
    at all; empty: any.

    `traits` say what it has, and so what can be planted in it. Of its data: `tokens`, `pictures`, `vectors`
    or `signals`; `edges` where samples are joined; `solvable` where the loss can come near zero. Of what is
    learned: `classes`, `tokens` or `values`; `causal` where the next token is; `contrastive` where samples
    are told from each other. Of its blocks: `stream` where each adds to one residual stream that no norm
    bounds, `stack` where these are moreover the items of one list, called in a row. The others are names of
    layers."""

    id: str
    build: Build
    traits: frozenset[str]
    lr: float
    sgd_lr: float
    batch: int
    steps: int
    warmup: int
    clip: float
    optimizers: tuple[str, ...] = ()

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.build) or ""

    def training(
        self, optimizer: str, seed: int, batch: int | None = None, steps: int | None = None, **shape: Any
    ) -> Training:
        """A sound training of it, ready for a fault to be planted."""
        torch.manual_seed(seed)
        chosen = OPTIMIZERS[optimizer]
        return Training(
            parts=self.build(seed=seed, batch=batch or self.batch, **shape),
            make_optimizer=chosen.make,
            lr=self.sgd_lr if chosen.descends else self.lr * chosen.scale,
            steps=steps or self.steps,
            warmup=self.warmup,
            clip=self.clip,
            seed=seed,
            recipe=dict(
                architecture=self.id, optimizer=optimizer, seed=seed, batch=batch, steps=steps, **shape
            ),
        )


ARCHITECTURES: Registry[Architecture] = Registry("architecture", "stabdiag.zoo.models")


def architecture(
    id: str,
    *traits: str,
    lr: float,
    sgd_lr: float,
    batch: int,
    steps: int = 400,
    warmup: int = 20,
    clip: float = 0.0,
    optimizers: tuple[str, ...] = (),
) -> Callable[[Build], Build]:
    def declare(build: Build) -> Build:
        ARCHITECTURES.add(
            Architecture(id, build, frozenset(traits), lr, sgd_lr, batch, steps, warmup, clip, optimizers)
        )
        return build

    return declare
