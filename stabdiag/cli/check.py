"""`stabdiag check`: a gate for continuous integration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stabdiag.cli._options import RUN, configuration, map_option, read_run, selection_options
from stabdiag.cli._output import write

if TYPE_CHECKING:
    from stabdiag.core.config import Configuration
    from stabdiag.core.diagnosis import Diagnosis
    from stabdiag.core.gate import Gate
    from stabdiag.core.run import Run

FOUND = 1
FILE = click.Path(path_type=Path, dir_okay=False)


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
@click.option("--junit", type=FILE, metavar="PATH", help="Write the outcome as JUnit XML as well.")
@click.option("--sarif", type=FILE, metavar="PATH", help="Write the findings as SARIF 2.1.0 as well.")
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
    junit: Path | None,
    sarif: Path | None,
) -> None:
    """Exit with 1 where RUN has findings, 0 where it is clean, 2 where that cannot be said.

    RUN is a run directory, by default the latest of stabdiag-runs, or the log of another tool.
    """
    from stabdiag.render.terminal import shortened, speakable

    _apart(junit, sarif)
    config = configuration(settings, select, ignore)
    checked = _read(run, names)
    old = _read(baseline, names) if baseline else None
    gate = _gate(checked, config, fail_on, old, whole=not select)
    for finding in gate.failing:
        places = f" at {', '.join(finding.sites[:3])}" if finding.sites else ""
        where = f"{finding.signature}{places}, step {finding.onset_step}"
        told = f"{finding.severity!s:8} {where}: {finding.message}"
        click.echo(speakable(shortened(told), sys.stdout.encoding))
    if gate.crash:
        click.echo(f"critical the run {gate.crash}")
    if junit:
        from stabdiag.render.junit import render_junit

        write(render_junit(checked, gate), junit, "--junit")
    if sarif:
        from stabdiag import __version__
        from stabdiag.render.sarif import render_sarif

        write(render_sarif(checked, gate, __version__), sarif, "--sarif")
    ctx.exit(0 if gate.passed else FOUND)


def _apart(junit: Path | None, sarif: Path | None) -> None:
    """StabdiagError where one outcome would be written over the other."""
    if junit and sarif and junit.resolve() == sarif.resolve():
        from stabdiag.core.errors import StabdiagError

        raise StabdiagError(f"--junit and --sarif would both write {junit}", "give each a file of its own")


def _gate(run: Run, config: Configuration, fail_on: str, baseline: Run | None, *, whole: bool) -> Gate:
    from stabdiag.analysis.catalogue import SIGNATURES
    from stabdiag.analysis.comparison.only import same_place
    from stabdiag.analysis.diagnose import diagnose
    from stabdiag.core.finding import Severity
    from stabdiag.core.gate import Gate

    diagnosis = diagnose(run, config)
    old = diagnose(baseline, config).findings if baseline else ()
    known = tuple(finding for finding in diagnosis.findings if any(same_place(finding, one) for one in old))
    failing = tuple(
        finding
        for finding in diagnosis.findings
        if finding.severity >= Severity[fail_on] and finding not in known
    )
    skipped = {skip.signature for skip in diagnosis.skipped}
    wanted = [entry.id for entry in SIGNATURES if not config.select or entry.id in config.select]
    evaluated = tuple(id for id in wanted if id not in skipped)
    # A crash that no signature explains is no clean run either, unless only some were asked for; what is not
    # critical explains none.
    explained = any(finding.severity == Severity.critical for finding in diagnosis.findings)
    crashed = diagnosis.verdict == "failed" and not explained and whole
    end = _end(diagnosis) if crashed else ""
    return Gate(diagnosis, failing, evaluated, known if baseline else None, end)


def _end(diagnosis: Diagnosis) -> str:
    if diagnosis.run["signal"]:
        return f"was killed by {diagnosis.run['signal']}"
    if diagnosis.run["exit_status"]:
        return f"ended with status {diagnosis.run['exit_status']}"
    return "ended with a loss or weights that are not finite"


def _read(path: Path | None, names: tuple[str, ...]) -> Run:
    from stabdiag.core.errors import StabdiagError

    run = read_run(path, names)
    if not run.steps:
        raise StabdiagError(f"{run.path} holds no recorded step", "nothing can be said of it")
    return run
