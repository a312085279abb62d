"""Which cases make up the zoo: a part to calibrate on, and a part to be judged by, of things the other
never saw."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.case import Case
from stabdiag.zoo.control import CONTROLS, Control
from stabdiag.zoo.fault import FAULTS, Fault
from stabdiag.zoo.optimizer import OPTIMIZERS

Setting = tuple[str, str]
"""An architecture, and the optimizer that trains it."""

LATELY = 3
"""Cases of a fault that are not to be alike."""

CADENCES = (None, 10, None, 1, None, 10)
"""In turn: half of the cases are recorded as a user would, the others at a fixed rate."""


@dataclass(frozen=True)
class Part:
    """Cases of these architectures and optimizers, with seeds from `seed` on. `own` are what no other part
    has: they are preferred, and what is left over is used where a fault fits none of them. Another seed draws
    other combinations, too. The first `strong` cases of each fault are at doses that have to be found, those
    after them at weaker ones."""

    id: str
    architectures: tuple[str, ...]
    optimizers: tuple[str, ...]
    seed: int
    own: tuple[str, ...] = ()
    strong: int = 1


CALIBRATION = Part(
    "calibration",
    (
        *("gpt", "mlp", "conv", "lstm", "regression", "experts", "vae", "gan", "encoder", "rnn"),
        *("markov-gpt", "resnet", "gru", "encoder-decoder"),
    ),
    ("adamw", "adamw-999", "sgd", "adam", "lion", "muon", "schedule-free"),
    seed=1,
)
UNSEEN = ("llama", "vit", "denoiser", "ssm", "two-tower", "graph"), ("rmsprop", "nadam", "adafactor")
"""Architectures and optimizers that no threshold is calibrated on."""

JUDGED = Part(
    "judged",
    (*CALIBRATION.architectures, *UNSEEN[0]),
    (*CALIBRATION.optimizers, *UNSEEN[1]),
    seed=7001,
    own=(*UNSEEN[0], *UNSEEN[1]),
    strong=2,
)
PARTS = (CALIBRATION, JUDGED)


def cases(part: Part, rounds: int) -> list[Case]:
    """So many cases of each fault, with their twins, and as many controls as make half of all cases healthy,
    each at least once; the same ones each time."""
    faults = [case for entry in FAULTS for case in _cases(entry, part, rounds)]
    chosen = dict.fromkeys([*faults, *(case.twin for case in faults)])
    for turn in range(rounds):
        controls = [case for entry in CONTROLS for case in _cases(entry, part, turn + 1)[turn:]]
        random.Random(f"{part.id} {part.seed} {turn}").shuffle(controls)
        for case in controls:
            if turn == 0 or len(chosen) < 2 * len(faults):
                chosen[case] = None
    return list(chosen)


def _cases(entry: Fault | Control, part: Part, rounds: int) -> list[Case]:
    settings = _settings(entry, part, rounds)
    doses = _doses(entry, part.strong)
    made = []
    for number in range(rounds if settings else 0):
        draw = random.Random(f"{part.id} {part.seed} {entry.id} {number}")
        architecture, optimizer = settings[number % len(settings)]
        every = CADENCES[(draw.randrange(len(CADENCES)) + number) % len(CADENCES)]
        dose = doses[number % len(doses)]
        made.append(Case(entry.id, architecture, optimizer, part.seed + number, dose, every))
    return made


def _doses(entry: Fault | Control, strong: int) -> Sequence[float]:
    """From fatal to benign, of which the first so many have to be found; a control has none."""
    if isinstance(entry, Control):
        return (1.0,)
    found = [dose for dose in reversed(entry.doses) if entry.has_to_be_found(dose)] or [entry.doses[-1]]
    first = [found[number % len(found)] for number in range(strong)]
    return (*first, *(dose for dose in reversed(entry.doses) if dose not in first))


def _settings(entry: Fault | Control, part: Part, count: int) -> list[Setting]:
    """So many pairs of architecture and optimizer that fit, in an order of chance: those with an architecture
    of the part's own first, then those with such an optimizer. Each has another architecture than the ones
    before it, and another optimizer, where that can be."""
    left = [
        (architecture, optimizer)
        for architecture in part.architectures
        for optimizer in part.optimizers
        if entry.fits(ARCHITECTURES[architecture], OPTIMIZERS[optimizer])
    ]
    random.Random(f"{part.id} {part.seed} {entry.id}").shuffle(left)
    ordered: list[Setting] = []
    while left and len(ordered) < count:
        lately = {name for setting in ordered[-LATELY:] for name in setting}
        best = min(left, key=lambda setting: _rank(setting, lately, part.own))
        left.remove(best)
        ordered.append(best)
    return ordered


def _rank(setting: Setting, lately: Collection[str], own: Collection[str]) -> tuple[bool, ...]:
    """The less, the sooner."""
    architecture, optimizer = setting
    return architecture in lately, architecture not in own, optimizer in lately, optimizer not in own
