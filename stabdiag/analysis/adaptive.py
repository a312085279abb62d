"""What the rules of the optimizer's state have to know of the optimizer that keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.adam import ages_at
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.core.run import Run

Group = Mapping[str, Any]
Ages = NDArray[np.float64]
AVERAGING = 0.42
"""Share of a whole step up to which updates from noise are told apart from those of one way: 0.229 with a β1
of 0.9."""
DEFAULT_FLOORS = {"float64": 2.2e-16, "float32": 1.2e-7, "float16": 9.8e-4, "bfloat16": 7.8e-3}
"""Adafactor's first epsilon where none is given, by the type of the weights."""


@dataclass(frozen=True)
class Family:
    """Optimizers of one formula, by the hyperparameters of a group and the steps that the state has seen.

    `newest` is what a step takes of the latest gradient's square into the second moment (1 - β2); `corrected`
    where that is divided by the sum of all such weights. `noise` is the update
    in learning rates, in rms, that gradients without direction make. `whole` is the update of gradients that
    are the same at all steps, None where no first moment keeps it apart from `noise`. `memory` is the
    argument that sets `newest`, and its letter; empty where it cannot be set to a constant."""

    newest: Callable[[Group, Ages], Ages]
    noise: Callable[[Group, Ages], Ages] | None
    whole: Callable[[Group], float | None] = lambda group: None
    memory: tuple[str, str] = ("", "")
    corrected: bool = False


def _betas(group: Group) -> tuple[float, float]:
    first, second = group.get("betas") or (0.9, 0.999)
    return float(first), float(second)


def _number(group: Group, name: str, usual: float) -> float:
    return float(group.get(name, usual))


def _averaged(beta: float) -> float:
    return float(((1 - beta) / (1 + beta)) ** 0.5)


def _nadam(group: Group, ages: Ages) -> Ages:
    """As Adam, but that the latest gradient has a weight of its own beside the first moment."""
    beta = _betas(group)[0]
    now = beta * (1 - 0.5 * 0.96 ** (ages * _number(group, "momentum_decay", 4e-3)))
    latest = (1 - now) + now * (1 - beta)
    return np.sqrt(latest**2 + now**2 * beta**2 * (1 - beta) / (1 + beta))


def _radam(group: Group, ages: Ages) -> Ages:
    """As Adam, times the rectifier, which grows to 1."""
    second = _betas(group)[1]
    limit = 2 / (1 - second) - 1
    length = np.maximum(limit - 2 * ages * second**ages / (1 - second**ages), 4.0)
    rectified = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
    noise: Ages = _averaged(_betas(group)[0]) * np.sqrt(rectified)
    return noise


def _whole_rmsprop(group: Group) -> float | None:
    momentum = _number(group, "momentum", 0.0)
    return 1 / (1 - momentum) if momentum else None


ADAM = Family(
    newest=lambda group, ages: np.full(ages.shape, 1 - _betas(group)[1]),
    noise=lambda group, ages: np.full(ages.shape, _averaged(_betas(group)[0])),
    whole=lambda group: 1.0,
    memory=("betas", "β2"),
    corrected=True,
)
FAMILIES: Mapping[str, Family] = {
    "Adam": ADAM,
    "AdamW": ADAM,
    "RAdam": replace(ADAM, noise=_radam),
    "NAdam": replace(ADAM, noise=_nadam),
    "RMSprop": Family(
        newest=lambda group, ages: np.full(ages.shape, 1 - _number(group, "alpha", 0.99)),
        noise=lambda group, ages: np.full(ages.shape, (1 - _number(group, "momentum", 0.0) ** 2) ** -0.5),
        whole=_whole_rmsprop,
        memory=("alpha", "alpha"),
    ),
    "Adagrad": Family(
        newest=lambda group, ages: 1 / ages,
        noise=lambda group, ages: ages**-0.5 / (1 + (ages - 1) * _number(group, "lr_decay", 0.0)),
    ),
    "Adadelta": Family(
        newest=lambda group, ages: np.full(ages.shape, 1 - _number(group, "rho", 0.9)),
        noise=None,
        memory=("rho", "rho"),
    ),
    "Adafactor": Family(
        newest=lambda group, ages: ages ** _number(group, "beta2_decay", -0.8),
        noise=lambda group, ages: np.ones(ages.shape),
    ),
}


@dataclass(frozen=True)
class Adaptive:
    """The optimizer of a run that divides by a second moment: `name` as the script calls it, and its first
    group's hyperparameters."""

    name: str
    family: Family
    group: Group = field(default_factory=dict)

    def farthest(self, ages: Ages) -> Ages:
        """The largest RMS_t that there can be: of a gradient to which all before it were nothing."""
        newest = np.maximum(self.family.newest(self.group, ages), 1e-12)
        weights = 1 - (1 - newest) ** ages if self.family.corrected else 1.0
        farthest: Ages = np.sqrt(weights / newest)
        return farthest

    def noise(self, ages: Ages) -> Ages:
        """Raises NotEvaluable where it is not known."""
        if self.family.noise is None:
            raise NotEvaluable(f"how long the updates of {self.name} are in health is not known")
        return self.family.noise(self.group, ages)

    def averages(self, ages: Ages) -> float | None:
        """A whole step in learning rates, None where updates are near that in health as well."""
        whole = self.family.whole(self.group)
        if whole is None or not ages.size or np.median(self.noise(ages)) > AVERAGING * whole:
            return None
        return whole

    @property
    def memory(self) -> str:
        """The argument that says how much of the second moment is kept in a step; empty where none does."""
        return self.family.memory[0]

    @property
    def symbol(self) -> str:
        return self.family.memory[1]

    def keeping(self, share: float) -> str:
        """The argument that keeps as much of the second moment in a step, as code."""
        first = _betas(self.group)[0]
        return f"betas=({first:g}, {share:g})" if self.memory == "betas" else f"{self.memory}={share:g}"

    def with_epsilon(self, value: float) -> str:
        """The argument, as code."""
        held = self.group.get("eps")
        return f"eps=({value:g}, {held[1]:g})" if isinstance(held, list | tuple) else f"eps={value:g}"

    def of_trainer(self, argument: str) -> str:
        """How the transformers' Trainer is told the same, which it can be of Adam alone."""
        return f" (Trainer: {argument})" if self.family is ADAM else ""


def adaptive(run: Run) -> Adaptive:
    """The first optimizer that has a second moment: torch's own by the class whose step it takes, others by
    Adam's argument. Raises NotEvaluable where the run's optimizers are known, and have none."""
    told = [event.data for event in run.events_of("optimizer") if event.rank == 0]
    for data in told:
        name, group = str(data.get("name") or ""), dict(next(iter(data.get("groups") or ({},))))
        family = FAMILIES.get(str(data.get("family") or name))
        if family is None and "family" not in data and group.get("betas"):
            family = ADAM
        if family is not None:
            return Adaptive(name, family, group)
    if told:
        names = ", ".join(dict.fromkeys(str(data.get("name")) for data in told))
        raise NotEvaluable(f"no second moment is known of {names}")
    return Adaptive("Adam", ADAM)


def kept(run: Run, step: int) -> float | None:
    """What a step keeps of the second moment (β2) around `step`; None where there is none."""
    try:
        optimizer = adaptive(run)
    except NotEvaluable:
        return None
    ages = np.maximum(ages_at(run, np.array([max(step, 0)])), 1.0)
    return 1 - float(optimizer.family.newest(optimizer.group, ages)[0])


def epsilon(run: Run) -> float | None:
    """The term that keeps the division finite; Adafactor's first, by default that of its weights' type."""
    try:
        value = adaptive(run).group.get("eps")
    except NotEvaluable:
        return None
    if isinstance(value, list | tuple):
        kind = next((site.dtype for site in run.sites("optimizer")), "")
        value = DEFAULT_FLOORS.get(kind) if value[0] is None else value[0]
    return float(value) if isinstance(value, int | float) else None
