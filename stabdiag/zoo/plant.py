"""Trains with a fault: `python -m stabdiag.zoo.plant FAULT`, as a script would."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import torch

from stabdiag.core.errors import UnknownName
from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.case import Case
from stabdiag.zoo.fault import FAULTS, Fault
from stabdiag.zoo.optimizer import OPTIMIZERS

FIRST_CHOICE = ("gpt", "mlp", "conv")
EVERY = 10


def default_case(fault: Fault, seed: int = 0) -> Case:
    """The fault at its strongest, in the language model where that can have it."""
    order = [*FIRST_CHOICE, *(a.id for a in ARCHITECTURES if a.id not in FIRST_CHOICE)]
    fitting = [
        (architecture, optimizer.id)
        for architecture in order
        for optimizer in OPTIMIZERS
        if fault.fits(ARCHITECTURES[architecture], optimizer)
    ]
    architecture, optimizer = next((pair for pair in fitting if pair[1] == "adamw"), fitting[0])
    return Case(fault.id, architecture, optimizer, seed, fault.doses[-1])


def command(case: Case) -> tuple[str, ...]:
    """What trains a case, and nothing but that: to be recorded, and replayed."""
    return sys.executable, "-m", "stabdiag.zoo.plant", "--case", json.dumps(case.to_json())


def parse(arguments: Sequence[str]) -> tuple[Case, int | None]:
    """The case that a command line asks for, and its number of steps where it names one. UnknownName."""
    parser = argparse.ArgumentParser(
        prog="python -m stabdiag.zoo.plant",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"faults:\n  {_known()}",
    )
    parser.add_argument("fault", nargs="?", default="")
    parser.add_argument(
        "--case", metavar="JSON", help="a case of the zoo, in place of a fault at its strongest"
    )
    parser.add_argument("--steps", type=int, help="train for so many steps")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.case:
        return Case.from_json(json.loads(options.case)), options.steps
    return default_case(FAULTS[options.fault], options.seed), options.steps


def _known() -> str:
    return "\n  ".join(fault.id for fault in FAULTS)


def main(arguments: Sequence[str]) -> None:
    try:
        case, steps = parse(arguments)
    except UnknownName as error:
        sys.exit(f"{error.message}; {error.hint}\n\nfaults:\n  {_known()}")
    torch.set_num_threads(1)
    training, planted = case.prepared()
    print(f"{case.subject} in {case.architecture}, trained by {case.optimizer}: {planted}", flush=True)
    training.steps = steps or training.steps

    def tell(step: int, loss: float) -> None:
        if (step + 1) % EVERY == 0 or step + 1 == training.steps:
            print(f"step {step + 1}/{training.steps}  loss {loss:.4g}", flush=True)

    training.run(tell)


if __name__ == "__main__":
    main(sys.argv[1:])
