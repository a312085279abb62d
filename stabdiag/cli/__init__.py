"""The command line: one file a command, imported when it is asked for."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Sequence

import click
from click.shell_completion import get_completion_class

from stabdiag import __version__
from stabdiag.core.errors import StabdiagError, UnknownName

COULD_NOT = 2
INTERRUPTED = 130
COMPLETE = "_STABDIAG_COMPLETE"
"""The environment variable in which the shell asks; its name is click's choice."""

BUG = "this is a bug of stabdiag; --debug shows it"


class Commands(click.Group):
    """Each module of this package is a command: the one that it defines under its own name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        modules = (module.name for module in pkgutil.iter_modules(__path__))
        return sorted(name for name in modules if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = self.list_commands(ctx)
        if cmd_name not in known:
            if ctx.resilient_parsing:  # a shell asks what may come next
                return None
            raise UnknownName("command", cmd_name, known)
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{cmd_name}"), cmd_name)
        if not any(parameter.name == "debug" for parameter in command.params):
            command.params.append(_debug())
        return command


def _debug() -> click.Option:
    def note(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.obj["debug"] = ctx.obj["debug"] or value

    return click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=note,
        help="Show the traceback of an error.",
    )


def _completion() -> click.Option:
    def show(ctx: click.Context, _: click.Parameter, shell: str | None) -> None:
        found = get_completion_class(shell) if shell else None
        if found is not None:
            click.echo(found(stabdiag, {}, "stabdiag", COMPLETE).source())
            ctx.exit()

    return click.Option(
        ["--completion"],
        type=click.Choice(["bash", "zsh", "fish"]),
        is_eager=True,
        expose_value=False,
        callback=show,
        help='Print what makes a shell complete: eval "$(stabdiag --completion bash)".',
    )


@click.group(
    cls=Commands,
    params=[_debug(), _completion()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="stabdiag")
def stabdiag() -> None:
    """Stability diagnostics for PyTorch training.

    What went wrong, in which layer, since which step, why, and the change that cures it.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Ends the process: with the command's status, or with 2 where it could not do its work."""
    state = {"debug": False}
    try:
        status = stabdiag.main(arguments, prog_name="stabdiag", standalone_mode=False, obj=state)
        # Here, and not when Python ends, where a reader that has gone would be reported.
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as asked:
        click.echo(asked.format_message())
        status = 0
    except click.Abort:
        status = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except Exception as error:
        if state["debug"]:
            traceback.print_exc()
        message, hint = _told(error)
        _complain(f"error: {message}")
        if hint:
            _complain(f"hint: {hint}")
        status = COULD_NOT
    sys.exit(status if isinstance(status, int) else 0)


def _told(error: Exception) -> tuple[str, str]:
    if isinstance(error, StabdiagError):
        return error.message, error.hint
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        return error.format_message(), f"{context.command_path} --help shows its use" if context else ""
    return " ".join(f"{type(error).__name__}: {error}".split()), BUG


def _complain(line: str) -> None:
    from stabdiag.render.terminal import speakable

    with contextlib.suppress(OSError, ValueError):
        # It may quote names out of a log that somebody else wrote.
        print(f"stabdiag: {speakable(line, sys.stderr.encoding)}", file=sys.stderr)
