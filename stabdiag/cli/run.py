"""`stabdiag run`: trains as always, recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from stabdiag.cli._names import EntryName
from stabdiag.cli._options import configuration, metrics_option, set_option
from stabdiag.core.cadence import Cadence

if TYPE_CHECKING:
    from stabdiag.launch.listener import Listener
    from stabdiag.launch.voice import Voice


class TargetCommand(click.Command):
    """A command whose own options end where the target begins: everything from there on is the target's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        start = self._target_index(args)
        # Only --help and the like may come without a target.
        return super().parse_args(ctx, [*args[:start], "--", *args[start:]] if start < len(args) else args)

    def _target_index(self, args: list[str]) -> int:
        options = [parameter for parameter in self.params if isinstance(parameter, click.Option)]
        valued = {name for option in options if not option.is_flag for name in option.opts}
        index = 0
        while index < len(args):
            word = args[index]
            if word == "--" or not word.startswith("-") or word.startswith(("-m", "-c")):
                break
            index += 2 if word in valued else 1
        return index

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What begins with a dash after the target is an option of the target's."""
        return [] if ctx.params.get("target") else super().shell_complete(ctx, incomplete)


@click.command(cls=TargetCommand)
@click.option(
    "--budget",
    default="2%",
    show_default=True,
    metavar="SHARE",
    help="Share of the training time that recording may take; off: every step whole.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    metavar="K",
    help="In place of a budget: every K-th step whole, gradients and the batch at all.",
)
@click.option(
    "--log-dir",
    type=click.Path(path_type=Path),
    default=Path("stabdiag-runs"),
    show_default=True,
    metavar="DIR",
    help="The folder in which the run directory is made.",
)
@click.option("--name", metavar="NAME", help="The run directory's own name.  [default: target and time]")
@click.option(
    "--keep-batches",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Hold the batches of the last N steps in memory, and write them with the flight record.",
)
@set_option
@click.option(
    "--stop-on",
    type=click.Choice(["critical"]),
    help="Interrupt the target at the first critical finding (SIGINT, then SIGTERM).",
)
@click.option(
    "--on-finding",
    metavar="COMMAND",
    help="Have the shell run COMMAND for each finding, which is JSON on its standard input.",
)
@metrics_option
@click.option(
    "--apply",
    "apply",
    type=EntryName("intervene/interventions"),
    multiple=True,
    metavar="FIX[=VALUE][@STEP]",
    help="Apply a fix while training, from a step on; may be repeated. `stabdiag explain` lists them.",
)
@click.option(
    "--guard",
    is_flag=True,
    help="Skip steps that are not finite, tame outlying ones, stop a run that has diverged.",
)
@click.option("--tensorboard", is_flag=True, help="Write the run for TensorBoard too, while it trains.")
@click.option("--no-report", is_flag=True, help="Write no report.html at the end.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing but errors.")
@click.argument(
    "target",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="TARGET [ARGS]...",
    shell_complete=lambda _ctx, _param, incomplete: [CompletionItem(incomplete, type="file")],
)
def run(
    budget: str,
    every: int | None,
    log_dir: Path,
    name: str | None,
    keep_batches: int,
    settings: tuple[str, ...],
    stop_on: str | None,
    on_finding: str | None,
    metrics_port: int | None,
    apply: tuple[str, ...],
    guard: bool,
    tensorboard: bool,
    no_report: bool,
    quiet: bool,
    target: tuple[str, ...],
) -> None:
    """Run TARGET and record its training.

    TARGET is a script, `-m module`, `-c code`, or a program on PATH, such as torchrun. Everything after
    it is the target's. The exit status is the target's own.
    """
    from stabdiag.intervene.request import Acting
    from stabdiag.launch.supervisor import Options, supervise
    from stabdiag.launch.target import resolve_target
    from stabdiag.launch.voice import Voice

    config = configuration(settings)
    cadence = Cadence.parse(budget, every, keep_batches)
    acting = Acting.parse(apply, guard)
    options = Options(cadence, log_dir, name, not no_report, stop_on == "critical", acting, config)
    voice = Voice(quiet)
    listeners = _listeners(voice, on_finding, metrics_port, tensorboard)
    supervise(resolve_target(target), options, voice, listeners).pass_on()


def _listeners(
    voice: Voice, on_finding: str | None, metrics_port: int | None, tensorboard: bool
) -> list[Listener]:
    """What is asked for, and nothing else imported."""
    listeners: list[Listener] = []
    if on_finding is not None:
        from stabdiag.launch.on_finding import OnFinding

        listeners.append(OnFinding(on_finding, voice))
    if metrics_port is not None:
        from stabdiag.launch.metrics import Metrics

        listeners.append(Metrics(metrics_port, voice))
    if tensorboard:
        from stabdiag.launch.on_board import OnBoard

        listeners.append(OnBoard())
    return listeners
