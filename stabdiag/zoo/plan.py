"""Which cases make up the zoo: a part to calibrate on, and a part to be judged by, of things the other
never saw."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.case import Case
from stabdiag.zoo.control import CONTROLS, Control
from stabdiag.zoo.fault import FAULTS, Fault
from stabdiag.zoo.optimizer import OPTIMIZERS

CADENCES = (None, 10, None, 1, None, 10)
"""In turn: half of the cases are recorded as a user would, the others at a fixed rate."""


@dataclass(frozen=True)
class Part:
    """Cases of these architectures and optimizers, with seeds from `seed` on. `own` are what no other part
    has: they are preferred, and what is left over is used where a fault fits none of them. Another seed draws
    other combinations, too."""

    id: str
    architectures: tuple[str, ...]
    optimizers: tuple[str, ...]
    seed: int
    own: tuple[str, ...] = ()


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
    seed=5001,
    own=(*UNSEEN[0], *UNSEEN[1]),
)
PARTS = (CALIBRATION, JUDGED)


def cases(part: Part, rounds: int) -> list[Case]:
    """So many cases of each fault, with their twins, and as many of each control; the same ones each time."""
    chosen = [case for entry in FAULTS for case in _cases(entry, part, rounds)]
    twins = [case.twin for case in chosen]
    controls = [case for entry in CONTROLS for case in _cases(entry, part, rounds)]
    return list(dict.fromkeys([*chosen, *twins, *controls]))


def _cases(entry: Fault | Control, part: Part, rounds: int) -> Iterator[Case]:
    settings = _settings(entry, part)
    for number in range(rounds if settings else 0):
        draw = random.Random(f"{part.id} {part.seed} {entry.id} {number}")
        architecture, optimizer = settings[number % len(settings)]
        dose = _doses(entry)[number % len(_doses(entry))]
        every = CADENCES[(draw.randrange(len(CADENCES)) + number) % len(CADENCES)]
        yield Case(entry.id, architecture, optimizer, part.seed + number, dose, every)


def _doses(entry: Fault | Control) -> Sequence[float]:
    """From fatal to benign; a control has none."""
    return tuple(reversed(entry.doses)) if isinstance(entry, Fault) else (1.0,)


def _settings(entry: Fault | Control, part: Part) -> list[tuple[str, str]]:
    """Pairs of architecture and optimizer that fit, the part's own ones first, in an order of chance."""
    fitting = [
        (architecture, optimizer)
        for architecture in part.architectures
        for optimizer in part.optimizers
        if entry.fits(ARCHITECTURES[architecture], OPTIMIZERS[optimizer])
    ]
    random.Random(f"{part.id} {part.seed} {entry.id}").shuffle(fitting)
    return _alternating(sorted(fitting, key=lambda pair: -len({*pair} & {*part.own})))


def _alternating(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same pairs, each with another architecture than the one before where that can be."""
    left, ordered = list(pairs), list[tuple[str, str]]()
    while left:
        last = {pair[0] for pair in ordered[-3:]}
        best = next((pair for pair in left if pair[0] not in last), left[0])
        left.remove(best)
        ordered.append(best)
    return ordered
