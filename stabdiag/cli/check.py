"""`stabdiag check`: a gate for continuous integration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stabdiag.cli._options import RUN, configuration, map_option, read_run, selection_options

if TYPE_CHECKING:
    from stabdiag.core.config import Configuration
    from stabdiag.core.diagnosis import Diagnosis

FOUND = 1


@click.command()
@click.argument("run", type=RUN, required=False, metavar="[RUN]")
@click.option(
    "--fail-on",
    type=click.Choice(["info", "warning", "critical"]),
    default="warning",
    show_default=True,
    help="The least severity that fails the check.",
)
@map_option
@selection_options
@click.option(
    "--baseline",
    type=RUN,
    metavar="RUN",
    help="A run whose findings are known: the same signature at the same place does not fail.",
)
@click.pass_context
def check(
    ctx: click.Context,
    run: Path | None,
    fail_on: str,
    names: tuple[str, ...],
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    settings: tuple[str, ...],
    baseline: Path | None,
) -> None:
    """Exit with 1 where RUN has findings, 0 where it is clean, 2 where that cannot be said.

    RUN is a run directory, by default the latest of stabdiag-runs, or the log of another tool.
    """
    from stabdiag.analysis.comparison.only import same_place
    from stabdiag.core.finding import Severity
    from stabdiag.render.terminal import shortened, speakable

    config = configuration(settings, select, ignore)
    diagnosis = _diagnosis(run, names, config)
    known = _diagnosis(baseline, names, config).findings if baseline else ()
    found = [
        finding
        for finding in diagnosis.findings
        if finding.severity >= Severity[fail_on] and not any(same_place(finding, old) for old in known)
    ]
    for finding in found:
        places = f" at {', '.join(finding.sites[:3])}" if finding.sites else ""
        where = f"{finding.signature}{places}, step {finding.onset_step}"
        told = f"{finding.severity!s:8} {where}: {finding.message}"
        click.echo(speakable(shortened(told), sys.stdout.encoding))
    # A crash that no signature explains is no clean run either, unless only some were asked for.
    crashed = diagnosis.verdict == "failed" and not diagnosis.findings and not select
    if crashed:
        click.echo(f"critical the run {_end(diagnosis)}")
    ctx.exit(FOUND if found or crashed else 0)


def _end(diagnosis: Diagnosis) -> str:
    if diagnosis.run["signal"]:
        return f"was killed by {diagnosis.run['signal']}"
    return f"ended with status {diagnosis.run['exit_status']}"


def _diagnosis(path: Path | None, names: tuple[str, ...], config: Configuration) -> Diagnosis:
    from stabdiag.analysis.diagnose import diagnose
    from stabdiag.core.errors import StabdiagError

    run = read_run(path, names)
    if not run.steps:
        raise StabdiagError(f"{run.path} holds no recorded step", "nothing can be said of it")
    return diagnose(run, config)
