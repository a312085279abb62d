"""What a control is: a training that is healthy, however much it looks as if it were not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stabdiag.core.registry import Registry
from stabdiag.zoo.architecture import Architecture
from stabdiag.zoo.optimizer import NamedOptimizer
from stabdiag.zoo.training import Training
from stabdiag.zoo.traits import fits

Prepare = Callable[[Training], None]


@dataclass(frozen=True)
class Control:
    """`prepare` changes a sound training in a way that does no harm. The other fields are those of
    `Fault`."""

    id: str
    prepare: Prepare
    needs: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    shape: Mapping[str, Any] = field(default_factory=dict)
    optimizers: tuple[str, ...] = ()
    batch: int | None = None
    steps: int | None = None
    world: int = 1

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.prepare) or ""

    def fits(self, architecture: Architecture, optimizer: NamedOptimizer) -> bool:
        return fits(self, architecture, optimizer, ())


CONTROLS: Registry[Control] = Registry("control", "stabdiag.zoo.controls")


def control(id: str, **fields: Any) -> Callable[[Prepare], Prepare]:
    """Declares a control, with the fields of `Control`."""

    def declare(prepare: Prepare) -> Prepare:
        CONTROLS.add(Control(id, prepare, **fields))
        return prepare

    return declare
