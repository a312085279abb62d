"""`stabdiag live`: follows a run as it is written."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stabdiag.cli._options import RUN, configuration, dashboard_option, metrics_option, set_option

if TYPE_CHECKING:
    from stabdiag.launch.listener import Listener
    from stabdiag.launch.onlooker import Onlooker
    from stabdiag.launch.voice import Voice
    from stabdiag.render.dashboard import Dashboard


@click.command()
@click.argument("run", type=RUN, required=False, metavar="[RUN]")
@click.option("--web", is_flag=True, help="Serve the page, which renews itself, on this machine only.")
@dashboard_option("Which series are shown, and in which order.")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="How long the run is to be, for the time that is left.  [default: as its command says]",
)
@metrics_option
@set_option
def live(
    run: Path | None,
    web: bool,
    dashboard: str,
    steps: int | None,
    metrics_port: int | None,
    settings: tuple[str, ...],
) -> None:
    """Follow RUN as it is written, until it has ended or Ctrl-C is pressed; the training goes on.

    RUN is a run directory, by default the latest of stabdiag-runs, and need not exist yet. Where stdout is
    no terminal, there is a line now and then.
    """
    with contextlib.suppress(KeyboardInterrupt):
        from stabdiag.launch.listener import Listeners
        from stabdiag.launch.onlooker import Onlooker
        from stabdiag.launch.voice import Voice
        from stabdiag.render.dashboard import load_dashboard
        from stabdiag.render.progress import Length
        from stabdiag.store.directory import DEFAULT

        voice = Voice()
        length = Length(steps, "--steps") if steps else None
        hearing = Listeners(_listeners(metrics_port, voice), voice)
        onlooker = Onlooker(run, configuration(settings), hearing, length)
        onlooker.latest = onlooker.look()
        shown = load_dashboard(dashboard, recorded=onlooker.latest.run.series)
        hearing.began(run or DEFAULT)
        onlooker.start()
        if web:
            from stabdiag.launch.web import serve

            serve(onlooker, shown, voice)
        else:
            _show(onlooker, shown)
        if onlooker.failure is not None:
            raise onlooker.failure


def _listeners(metrics_port: int | None, voice: Voice) -> list[Listener]:
    if metrics_port is None:
        return []
    from stabdiag.launch.metrics import Metrics

    return [Metrics(metrics_port, voice)]


def _show(onlooker: Onlooker, dashboard: Dashboard) -> None:
    from stabdiag.launch.live_view import show, tell
    from stabdiag.render.terminal import console_for

    console = console_for(sys.stdout, fluid=True)
    if console.is_terminal and not console.is_dumb_terminal:
        show(onlooker, dashboard, console)
    else:
        tell(onlooker, dashboard, console)
