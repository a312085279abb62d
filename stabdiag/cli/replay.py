"""`stabdiag replay`: a step once more, with the range of all that its modules give and get back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stabdiag.cli._options import RUN

if TYPE_CHECKING:
    from stabdiag.core.run import Run
    from stabdiag.store.flight import FlightRecord
    from stabdiag.zoo.replay import Replay

WRITTEN = (
    "one is written at a critical finding, a loss that is not finite, an exception, and when a signal ends it"
)


@click.command()
@click.argument("run", required=False, type=RUN)
@click.option(
    "--step",
    type=click.IntRange(min=0),
    metavar="N",
    help="This step.  [default: where it began to go wrong]",
)
def replay(run: Path | None, step: int | None) -> None:
    """Compute a step of RUN once more, and show the range of every module.

    Of the bundled trainer the step is made again, from its last checkpoint or from the start, to the bit.
    For a script of your own it prints the code that does so: with its random state, its batch
    (`stabdiag run --keep-batches N`) and hooks on all modules.
    """
    from stabdiag.core.errors import StabdiagError
    from stabdiag.store.directory import resolve_run
    from stabdiag.store.flight import flight_records
    from stabdiag.store.reader import load

    recorded = load(resolve_run(run))
    assert recorded.path is not None
    records = flight_records(recorded.path)
    own = not _is_bundled(recorded)
    if not records and (own or step is None):
        hint = WRITTEN if own else "--step N makes any step of the bundled trainer again"
        raise StabdiagError(f"{recorded.path} has no flight record", hint)
    chosen = _worst(recorded, records) if step is None else step
    if own:
        _print_code(recorded, records, chosen)
    else:
        _replay(recorded, records, chosen)


def _is_bundled(run: Run) -> bool:
    from stabdiag.zoo.command import trainer_arguments

    return trainer_arguments(run.info.command) is not None


def _worst(run: Run, records: Sequence[FlightRecord]) -> int:
    from stabdiag.analysis.diagnose import diagnose
    from stabdiag.analysis.flight import step_to_replay

    step = step_to_replay(run, diagnose(run).incidents)
    return records[0].steps[-1] if step is None else step


def _print_code(run: Run, records: Sequence[FlightRecord], step: int) -> None:
    from importlib import resources

    from stabdiag.core.errors import StabdiagError
    from stabdiag.render.replay_code import replay_code
    from stabdiag.store.flight import STEPS

    holding = [record for record in records if step in record.steps]
    if not holding:
        spans = ", ".join(f"{record.steps[0]} to {record.steps[-1]}" for record in records)
        raise StabdiagError(f"the flight record does not hold step {step}", f"it holds steps {spans}")
    record = max(holding, key=lambda record: step in record.batches)
    folder = resources.files("stabdiag.reference")
    sources = [folder.joinpath(name).read_text(encoding="utf-8") for name in ("ranges.py", "kept_step.py")]
    batch = record.batches.get(step)
    click.echo(replay_code(str(run.path), step, record.path / STEPS, batch, sources))


def _replay(run: Run, records: Sequence[FlightRecord], step: int) -> None:
    from stabdiag.render.ranges import print_ranges
    from stabdiag.render.terminal import console_for
    from stabdiag.zoo import replay as trainer

    threads = next((n for record in records if isinstance(n := record.about.get("threads"), int)), None)
    done = trainer.replay(run, step, threads, _progress)
    console = console_for(sys.stdout)
    print_ranges(done.ranges, console)
    console.print(_verdict(done, step))


def _progress(done: int, steps: int) -> None:
    if sys.stderr.isatty():
        line = f"step {done} of {steps}" if done < steps else ""
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def _verdict(done: Replay, step: int) -> str:
    from stabdiag.render.numbers import count, number

    told = f"step {step}: loss {number(float(done.losses[-1]))}; made again from step {done.first} on"
    if done.differs is not None:
        return f"{told}; NOT the run's own: the loss of step {done.differs} is another"
    agreed = f"{count(done.agreed, 'loss', 'losses')} equal to the run's"
    return f"{told}; {agreed}{', to the bit' if done.exact else ''}"
