"""`stabdiag demo`: the bundled language model, healthy or with a fault in it, trained under `run`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from stabdiag.cli._names import EntryName
from stabdiag.core.cadence import Cadence

EVERY = 10


@click.command()
@click.argument("fault", required=False, type=EntryName("zoo/faults"))
@click.option("--list", "listed", is_flag=True, help="List the faults.")
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Train for N steps.")
@click.option("--seed", type=int, metavar="SEED", help="Seed of the weights and of the batches.")
@click.option(
    "--log-dir",
    type=click.Path(path_type=Path),
    default=Path("stabdiag-runs"),
    show_default=True,
    metavar="DIR",
    help="The folder in which the run directory is made.",
)
def demo(fault: str | None, listed: bool, steps: int | None, seed: int | None, log_dir: Path) -> None:
    """Train the bundled language model under `stabdiag run`, about a minute on two cores.

    With the name of a FAULT, that fault is planted, and the diagnosis should name it. The text is that of
    Python's standard library on this machine.
    """
    if listed:
        _list()
        return
    from stabdiag.launch.supervisor import Options, supervise
    from stabdiag.launch.target import resolve_target
    from stabdiag.launch.voice import Voice

    words = ["-m", "stabdiag.reference.train"]
    if fault:
        from stabdiag.zoo.fault import FAULTS

        words = ["-m", "stabdiag.zoo.plant", FAULTS[fault].id]
    for flag, value in (("--steps", steps), ("--seed", seed)):
        if value is not None:
            words += [flag, str(value)]
    name = time.strftime(f"demo{f'-{fault}' if fault else ''}-%Y%m%d-%H%M%S")
    # Not under a budget: what a demonstration shows must not depend on how busy the machine is.
    options = Options(Cadence(every=EVERY), log_dir, name)
    ending = supervise(resolve_target(words), options, Voice())
    report = log_dir / name / "report.html"
    if report.is_file():
        click.echo(report)
    ending.pass_on()


def _list() -> None:
    from stabdiag.zoo.fault import FAULTS

    width = max(len(fault.id) for fault in FAULTS)
    for fault in FAULTS:
        click.echo(f"{fault.id:<{width}}  {fault.doc.splitlines()[0]}")
