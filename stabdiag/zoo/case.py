"""A case of the zoo: one training, with a fault in it or a control, recorded in one way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.control import CONTROLS, Control
from stabdiag.zoo.fault import FAULTS, Fault, Planted
from stabdiag.zoo.training import Training
from stabdiag.zoo.world import share


@dataclass(frozen=True)
class Case:
    """`subject` is the id of a fault or a control. `every` is the recording cadence, None for the default
    budget. A twin of a fault is made in the shape that this fault needs: `shaped_for` names it."""

    subject: str
    architecture: str
    optimizer: str
    seed: int
    dose: float = 1.0
    every: int | None = None
    shaped_for: str = ""

    @property
    def name(self) -> str:
        """Also that of its run directory."""
        rate = f"every{self.every}" if self.every else "budget"
        dose = f"dose{self.dose:g}" if self.is_fault else self.shaped_for
        words = (self.subject, self.architecture, self.optimizer, f"seed{self.seed}", dose, rate)
        return "--".join(word for word in words if word)

    @property
    def is_fault(self) -> bool:
        return self.subject in FAULTS

    @property
    def entry(self) -> Fault | Control:
        return FAULTS[self.subject] if self.is_fault else CONTROLS[self.subject]

    @property
    def twin(self) -> Case:
        """The healthy training of the same seed, shape and data: what a fault is compared with."""
        fault = FAULTS[self.subject]
        special = fault.shape or fault.batch or fault.steps or fault.world > 1
        return Case(
            fault.sound, self.architecture, self.optimizer, self.seed, shaped_for=fault.id if special else ""
        )

    @property
    def world(self) -> int:
        """Processes that train together."""
        return self.form.world

    @property
    def form(self) -> Fault | Control:
        """What says in which shape it is trained."""
        return FAULTS[self.shaped_for] if self.shaped_for else self.entry

    def prepared(self, rank: int = 0) -> tuple[Training, Planted | None]:
        """The training, with its optimizers made, and the truth where it is a fault."""
        form = self.form
        broken = FAULTS[self.subject].broken if self.is_fault else {}
        training = ARCHITECTURES[self.architecture].training(
            self.optimizer, self.seed, form.batch, form.steps, **{**form.shape, **broken}
        )
        training.rank = rank
        entry, planted = self.entry, None
        if isinstance(entry, Fault):
            planted = entry.plant(training, self.dose)
        else:
            entry.prepare(training)
        if form.world > 1:
            share(training, rank, form.world)
        training.prepare()
        return training, planted

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Case:
        return cls(**record)
