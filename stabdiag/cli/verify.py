"""`stabdiag verify`: tries the fixes of a run in replays of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stabdiag.cli._options import RUN, configuration, set_option

if TYPE_CHECKING:
    from stabdiag.launch.replays import Watcher
    from stabdiag.launch.verify import Plan

NONE_CURES = 1


@click.command()
@click.argument("run", required=False, type=RUN)
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Replays at a time.  [default: by cores]"
)
@click.option(
    "--steps", type=click.IntRange(min=10), metavar="N", help="Steps a replay.  [default: past the failure]"
)
@click.option("--healthy", type=RUN, metavar="RUN", help="A run without the fault, to measure recovery by.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@set_option
def verify(
    run: Path | None,
    jobs: int | None,
    steps: int | None,
    healthy: Path | None,
    as_json: bool,
    settings: tuple[str, ...],
) -> None:
    """Replay RUN with each of its fixes that can be applied while training, and say which cure it.

    Beside them go the command unchanged, and a placebo: a tenth of the learning rate. What the command
    writes, it writes again. Secrets in it were not recorded, and are asked for. Exit status 0 if a fix cures,
    1 if none does.
    """
    from stabdiag.api import diagnose, load
    from stabdiag.launch.secrets import given_again
    from stabdiag.launch.verify import default_jobs, plan
    from stabdiag.launch.verify import verify as try_all
    from stabdiag.render.terminal import console_for
    from stabdiag.render.verification import render_verification
    from stabdiag.store.verification import write_verification

    config = configuration(settings)
    recorded = load(run)
    planned = plan(recorded, diagnose(recorded, config), steps)
    recorded = replace(recorded, info=given_again(recorded.info))
    at_once = jobs or default_jobs(recorded)
    with _progress(planned) as watcher:
        twin = load(healthy) if healthy is not None else None
        result = try_all(recorded, planned, config, at_once, twin, watcher)
    if recorded.path is not None:
        write_verification(recorded.path, result)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
    else:
        render_verification(result, console_for(sys.stdout))
    tried = [trial for trial in result.trials if trial.runtime]
    sys.exit(0 if any(trial.mark == "verified" for trial in tried) else NONE_CURES)


@contextmanager
def _progress(planned: Plan) -> Iterator[Watcher]:
    """A bar a replay on a terminal; elsewhere a line for each that has ended."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from stabdiag.launch.voice import Voice

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {v.id: bars.add_task(v.id, total=planned.horizon, start=False) for v in planned.variants}

        def watch(id: str, steps: int, ended: bool) -> None:
            bars.start_task(tasks[id])
            bars.update(tasks[id], completed=min(steps, planned.horizon))
            if ended and not console.is_terminal:
                Voice().say(f"{id}: {steps} steps")
            if ended:
                bars.stop_task(tasks[id])

        yield watch
