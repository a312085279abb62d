"""A step of the reference trainer once more: the same command, from its last checkpoint or from the start."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from stabdiag.core.errors import StabdiagError
from stabdiag.core.run import Floats, Run
from stabdiag.reference.ranges import Range, Ranges
from stabdiag.reference.train import (
    Options,
    build_data,
    build_model,
    build_optimizer,
    load,
    parse,
    saved_step,
    train,
)
from stabdiag.zoo import plant
from stabdiag.zoo.command import PLANT, trainer_arguments

BLOCK = 10
PAIRWISE = 8
"""So many numbers numpy adds in another order than one after the other."""
Read = TypeVar("Read")
Progress = Callable[[int, int], None]
"""Is told how many steps are done, of how many."""


@dataclass(frozen=True)
class Replay:
    """`losses` are those of the steps from `first` on, float32; the last is that of the step itself.

    `agreed` counts the steps whose loss is that of the run, and `differs` is the first whose is not: to the
    bit, where it `exact`ly can be, which of many micro-batches depends on the order of a sum.
    """

    ranges: Sequence[Range]
    first: int
    losses: Floats
    agreed: int
    differs: int | None
    exact: bool


def replay(run: Run, step: int, threads: int | None = None, progress: Progress = lambda *_: None) -> Replay:
    """`step` is counted as the run counts. StabdiagError where it cannot be made again."""
    found = trainer_arguments(run.info.command)
    assert found is not None
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or before)
        # What the trainer says of itself is no output of ours.
        with contextlib.redirect_stdout(io.StringIO()):
            return _replay(run, *found, step, progress)
    except (OSError, ValueError, KeyError) as error:
        raise StabdiagError(f"the training cannot be made again: {error}") from error
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Remade:
    """A training as it was before step `first`. `offset` is the trainer's number of the run's first step,
    `steps` how many there are by the trainer's count; `train` makes some of them and gives their losses."""

    model: torch.nn.Module
    first: int
    offset: int
    steps: int
    exact: bool
    train: Callable[[range], torch.Tensor]


def _replay(run: Run, module: str, arguments: Sequence[str], step: int, progress: Progress) -> Replay:
    remade = _planted(arguments) if module == PLANT else _trainer(arguments, step)
    last = step + remade.offset
    if last >= remade.steps:
        raise StabdiagError(
            f"the run has no step {step}", f"its last one is {remade.steps - remade.offset - 1}"
        )
    first, losses = remade.first, []
    for begin in range(first, last, BLOCK):
        progress(begin - first, last + 1 - first)
        losses.append(remade.train(range(begin, min(begin + BLOCK, last))))
    with Ranges(remade.model) as ranges:
        losses.append(remade.train(range(last, last + 1)))
    progress(last + 1 - first, last + 1 - first)
    values = torch.cat(losses).to(torch.float32).numpy()
    tolerance = 0.0 if remade.exact else 1e-6
    agreed, differs = _compared(run, first - remade.offset, values, tolerance)
    return Replay(ranges.rows, first - remade.offset, values, agreed, differs, remade.exact)


def _trainer(arguments: Sequence[str], step: int) -> Remade:
    """The reference trainer, from its last checkpoint or from the start."""
    options, batches, _ = build_data(_understood(parse, arguments))
    model = build_model(options)
    optimizer = build_optimizer(model, options)
    offset = saved_step(options.resume) if options.resume else 0
    checkpoint = _checkpoint(options, step + offset) if step + offset < options.steps else ""
    first = load(checkpoint, model, optimizer) if checkpoint else 0
    silent = replace(options, checkpoint="", evaluate_every=0, log_every=options.steps + 1)

    def steps(some: range) -> torch.Tensor:
        return train(silent, model, optimizer, batches, steps=some)

    return Remade(model, first, offset, options.steps, options.accumulate < PAIRWISE, steps)


def _planted(arguments: Sequence[str]) -> Remade:
    """A training of the zoo with a fault in it, from the start."""
    case, steps = _understood(plant.parse, arguments)
    training, _ = case.prepared()

    def some(steps: range) -> torch.Tensor:
        done = len(training.losses)
        training.run(steps=steps)
        return torch.tensor(training.losses[done:])

    return Remade(training.model, 0, 0, steps or training.steps, training.accumulate == 1, some)


def _understood(read: Callable[[Sequence[str]], Read], arguments: Sequence[str]) -> Read:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return read(arguments)
    except SystemExit:
        raise ValueError(f"its options are not understood: {' '.join(arguments)}") from None


def _checkpoint(options: Options, last: int) -> str:
    """The latest of the run's checkpoints from which step `last` can be reached, empty for the start."""
    there = [path for path in (options.resume, options.checkpoint) if path and Path(path).is_file()]
    usable = {path: step for path in there if (step := saved_step(path)) <= last}
    return max(usable, key=lambda path: usable[path], default="")


def _compared(run: Run, first: int, losses: Floats, tolerance: float) -> tuple[int, int | None]:
    """How many losses are the recorded ones, and the first step whose is not."""
    table = run.table("run.loss")
    places = table.steps - first
    both = (places >= 0) & (places < len(losses))
    mine, recorded = losses[places[both]], table.first()[both]
    same = np.isclose(mine, recorded, rtol=tolerance, atol=0.0, equal_nan=True)
    different = table.steps[both][~same]
    return int(same.sum()), int(different[0]) if len(different) else None
