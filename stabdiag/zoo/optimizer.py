"""Optimizers to train the zoo with: one file each in `optimizers`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stabdiag.core.registry import Registry
from stabdiag.zoo.training import MakeOptimizer


@dataclass(frozen=True)
class NamedOptimizer:
    """`scale` is its learning rate over Adam's; `descends` where it is gradient descent with a rate of its
    own; `beta2` the decay of the second moment, where it has one."""

    id: str
    make: MakeOptimizer
    scale: float = 1.0
    descends: bool = False
    beta2: float | None = None

    @property
    def adaptive(self) -> bool:
        """Whether it is of Adam's family."""
        return self.beta2 is not None


OPTIMIZERS: Registry[NamedOptimizer] = Registry("optimizer", "stabdiag.zoo.optimizers")


def optimizer(
    id: str, *, scale: float = 1.0, descends: bool = False, beta2: float | None = None
) -> Callable[[MakeOptimizer], MakeOptimizer]:
    def declare(make: MakeOptimizer) -> MakeOptimizer:
        OPTIMIZERS.add(NamedOptimizer(id, make, scale, descends, beta2))
        return make

    return declare
