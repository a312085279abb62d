"""What a fault is: how it is planted in a training, and what a right diagnosis says of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stabdiag.core.registry import Registry
from stabdiag.zoo.architecture import Architecture
from stabdiag.zoo.optimizer import NamedOptimizer
from stabdiag.zoo.training import Training


@dataclass(frozen=True)
class Planted:
    """Where and when: the fault acts from `step` on, at sites that match one of the globs `sites` (empty:
    everywhere), and begins to show within `shows` steps."""

    step: int = 0
    sites: tuple[str, ...] = ()
    shows: int = 40


Plant = Callable[[Training, float], Planted]


@dataclass(frozen=True)
class Fault:
    """A fault of known truth.

    `plant` puts it into a training, as strong as `dose`, somewhere and at some step that it draws from the
    training's own random numbers. `doses` go from benign to fatal; one from `found_from` on has to be
    found, a weaker one only where it does harm (infinite: none has to, where all depends on the place). A
    right diagnosis has one of `signatures` (the first is its proper name) as the root of an incident of at
    least severity `least`, one of `causes`, and one of `fixes`, the first of which undoes what was planted:
    the twin is the training with it. `follows` are further signatures that tell the truth about it. It can
    be planted in architectures that have all traits `needs` ("a|b": either), made with `shape`, to which the
    fault itself adds `broken`, and trained by one of `optimizers` (empty: by any), in `world` processes.
    `leads` where something can be seen before the loss shows it."""

    id: str
    plant: Plant
    signatures: tuple[str, ...]
    causes: tuple[str, ...]
    fixes: tuple[str, ...]
    follows: tuple[str, ...] = ()
    doses: tuple[float, ...] = (1.0,)
    found_from: float = 0.0
    needs: tuple[str, ...] = ()
    shape: Mapping[str, Any] = field(default_factory=dict)
    broken: Mapping[str, Any] = field(default_factory=dict)
    optimizers: tuple[str, ...] = ()
    batch: int | None = None
    steps: int | None = None
    world: int = 1
    least: str = "warning"
    leads: bool = False

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.plant) or ""

    def fits(self, architecture: Architecture, optimizer: NamedOptimizer) -> bool:
        return fits(self.needs, self.optimizers, architecture, optimizer)


def fits(
    needs: Sequence[str], optimizers: Sequence[str], architecture: Architecture, optimizer: NamedOptimizer
) -> bool:
    """Whether a combination has what is needed; `adaptive` stands for all optimizers of Adam's family."""

    def among(wanted: Sequence[str]) -> bool:
        return not wanted or optimizer.id in wanted or ("adaptive" in wanted and optimizer.adaptive)

    has = architecture.traits | {architecture.id}
    trained = among(optimizers) and among(architecture.optimizers)
    return trained and all(has.intersection(need.split("|")) for need in needs)


FAULTS: Registry[Fault] = Registry("fault", "stabdiag.zoo.faults")


def fault(id: str, **truth: Any) -> Callable[[Plant], Plant]:
    """Declares a fault, with the fields of `Fault`."""

    def declare(plant: Plant) -> Plant:
        FAULTS.add(Fault(id, plant, **truth))
        return plant

    return declare
