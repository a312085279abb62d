"""A step of the reference trainer once more: the same command, from its last checkpoint or from the start."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from stabdiag.zoo.command import PLANT, TRAINER, trainer_arguments
from stabdiag.zoo.fault import FAULTS, Planted

BLOCK = 10
PAIRWISE = 8
"""So many numbers numpy adds in another order than one after the other."""
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


def _replay(run: Run, module: str, arguments: Sequence[str], step: int, progress: Progress) -> Replay:
    options, (model, optimizer, batches) = _built(module, arguments)
    offset = saved_step(options.resume) if options.resume else 0
    last = step + offset
    if last >= options.steps:
        raise StabdiagError(f"the run has no step {step}", f"its last one is {options.steps - offset - 1}")
    first = 0
    checkpoint = _checkpoint(options, last) if module == TRAINER else options.resume
    if checkpoint:
        first = load(checkpoint, model, optimizer)
    silent = replace(options, checkpoint="", evaluate_every=0, log_every=options.steps + 1)
    losses = []
    for begin in range(first, last, BLOCK):
        progress(begin - first, last + 1 - first)
        end = min(begin + BLOCK, last)
        losses.append(train(silent, model, optimizer, batches, steps=range(begin, end)))
    with Ranges(model) as ranges:
        losses.append(train(silent, model, optimizer, batches, steps=range(last, last + 1)))
    progress(last + 1 - first, last + 1 - first)
    values = torch.cat(losses).to(torch.float32).numpy()
    exact = options.accumulate < PAIRWISE
    agreed, differs = _compared(run, first - offset, values, 0.0 if exact else 1e-6)
    return Replay(ranges.rows, first - offset, values, agreed, differs, exact)


def _built(module: str, arguments: Sequence[str]) -> tuple[Options, Planted]:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            fault = FAULTS[arguments[0]] if module == PLANT else None
            options = parse(arguments[1:], **fault.options) if fault else parse(arguments)
    except SystemExit:
        raise ValueError(f"its options are not understood: {' '.join(arguments)}") from None
    options, batches, _ = build_data(options)
    if fault:
        return options, fault.plant(options, batches)
    model = build_model(options)
    return options, (model, build_optimizer(model, options), batches)


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
