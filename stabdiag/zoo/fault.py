"""What a fault is: how it is planted, and what a right diagnosis says of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from stabdiag.core.registry import Registry
from stabdiag.reference.data import Batches
from stabdiag.reference.model import GPT
from stabdiag.reference.train import Options

Planted = tuple[GPT, Optimizer, Batches]
Plant = Callable[[Options, Batches], Planted]


@dataclass(frozen=True)
class Fault:
    """A fault of known truth.

    `plant` gives the model, the optimizer and the batches to train with. A diagnosis is right when the
    root of its first incident is one of `roots`, its cause one of `causes`, a site of it matches the
    glob `site` and its onset is not before `step`. `options` take the place of the trainer's defaults.
    """

    id: str
    plant: Plant
    roots: tuple[str, ...]
    causes: tuple[str, ...]
    site: str
    step: int
    options: Mapping[str, Any]

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.plant) or ""


# Large enough to learn, small enough for each fault to show within half a minute on one core.
SMALL: Mapping[str, Any] = {"layers": 3, "width": 96, "heads": 3, "batch": 8}

FAULTS: Registry[Fault] = Registry("fault", "stabdiag.zoo.faults")


def fault(
    id: str,
    *,
    roots: Sequence[str],
    causes: Sequence[str],
    site: str = "*",
    step: int = 0,
    **options: Any,
) -> Callable[[Plant], Plant]:
    """Declares a fault; `options` are those of the trainer, over `SMALL` and its defaults."""

    def declare(plant: Plant) -> Plant:
        FAULTS.add(Fault(id, plant, tuple(roots), tuple(causes), site, step, {**SMALL, **options}))
        return plant

    return declare
