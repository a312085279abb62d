"""What a fault is: how it is planted in a training, and what a right diagnosis says of it."""

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
    found, a weaker one only where it does harm (infinite: none has to, where all depends on the place).

    A right diagnosis has one of `signatures` (the first is its proper name) as the root of an incident of at
    least severity `least`, one of `causes`, and one of `fixes`; `by_harm` where that severity is needed only
    if the loss shows harm, and a note is right else. `follows` are further signatures that tell
    the truth about it. `leads` where something can be seen before the loss shows it.

    It can be planted in architectures that have all traits `needs` ("a|b": either) and none of `without`,
    made with `shape`, to which the fault itself adds `broken`, and trained by an optimizer with one of the
    traits `optimizers` (empty: by any), in `world` processes. It is compared with the control `sound` of the
    same seed and shape, its healthy twin.

    `undoes` where the first of `fixes` undoes what was planted: the twin is the training with it. `recurs`
    where it comes again when the training is repeated, as a fault of the machine does not."""

    id: str
    plant: Plant
    signatures: tuple[str, ...]
    causes: tuple[str, ...]
    fixes: tuple[str, ...]
    follows: tuple[str, ...] = ()
    doses: tuple[float, ...] = (1.0,)
    found_from: float = 0.0
    needs: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    shape: Mapping[str, Any] = field(default_factory=dict)
    broken: Mapping[str, Any] = field(default_factory=dict)
    optimizers: tuple[str, ...] = ()
    batch: int | None = None
    steps: int | None = None
    world: int = 1
    least: str = "warning"
    by_harm: bool = False
    leads: bool = False
    undoes: bool = True
    recurs: bool = True
    sound: str = "healthy"

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.plant) or ""

    def has_to_be_found(self, dose: float) -> bool:
        """Even where it does no harm."""
        if self.found_from not in self.doses:
            return self.found_from == 0.0
        return self.doses.index(dose) >= self.doses.index(self.found_from)

    def fits(self, architecture: Architecture, optimizer: NamedOptimizer) -> bool:
        return fits(self, architecture, optimizer, self.broken)


FAULTS: Registry[Fault] = Registry("fault", "stabdiag.zoo.faults")


def fault(id: str, **truth: Any) -> Callable[[Plant], Plant]:
    """Declares a fault, with the fields of `Fault`."""

    def declare(plant: Plant) -> Plant:
        FAULTS.add(Fault(id, plant, **truth))
        return plant

    return declare
