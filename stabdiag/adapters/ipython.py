"""Notebooks: `%load_ext stabdiag`, then `%%stabdiag` as the first line of a cell that trains."""

# IPython's decorators and displays are not annotated.
# mypy: allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import re
import sys
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring
from IPython.display import display

from stabdiag.adapters.hosted import recorded_by, told
from stabdiag.api import Watch, watch
from stabdiag.core.errors import StabdiagError
from stabdiag.render.notebook_live import in_a_frontend

CELL = re.compile(r"%%(stabdiag(\s.*)?)$", re.DOTALL)


def load(shell: InteractiveShell) -> None:
    magics = StabdiagMagics(shell)
    shell.register_magics(magics)
    shell.input_transformers_cleanup.append(as_line)
    shell.events.register("post_run_cell", magics.after_cell)


def unload(shell: InteractiveShell) -> None:
    magics = shell.magics_manager.registry["StabdiagMagics"]
    shell.input_transformers_cleanup.remove(as_line)
    shell.events.unregister("post_run_cell", magics.after_cell)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("stabdiag")


def as_line(lines: list[str]) -> list[str]:
    """`%%stabdiag` becomes the first statement of its cell, which runs as any other: its output, its last
    value, `await` and the traceback of an error are as they would be without it."""
    found = CELL.match(lines[0]) if lines else None
    return [f"%{found[1]}", *lines[1:]] if found else lines


@magics_class
class StabdiagMagics(Magics):
    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._recording: Watch | None = None
        self._live = False

    @magic_arguments()
    @argument("--log-dir", default="stabdiag-runs", help="The folder in which the run directory is made.")
    @argument("--name", help="The run directory's own name.")
    @argument("--budget", default="2%", help="Share of the training time that recording may take.")
    @argument("--every", type=int, help="In place of a budget: every K-th step whole.")
    @argument("--keep-batches", type=int, default=0, help="Hold the batches of the last N steps.")
    @argument("--no-live", action="store_true", help="Show nothing until the cell has ended.")
    @line_cell_magic
    def stabdiag(self, line: str, cell: str | None = None) -> None:
        """Record the training in this cell, and show what was found when it ends."""
        if cell is not None:
            assert self.shell is not None
            self.shell.run_cell(f"%stabdiag {line}\n{cell}")
            return
        asked = parse_argstring(self.stabdiag, line)
        by = recorded_by()
        if by:
            print(f"stabdiag: {by} records this training: it is not recorded twice", file=sys.stderr)
            return
        self._live = in_a_frontend() and not asked.no_live
        try:
            self._recording = watch(
                log_dir=asked.log_dir,
                name=asked.name,
                budget=asked.budget,
                every=asked.every,
                keep_batches=asked.keep_batches,
            )
        except StabdiagError as error:
            raise UsageError(f"stabdiag: {error.message}. {error.hint}") from None
        if self._live:
            self._recording.live()

    def after_cell(self, result: ExecutionResult) -> None:
        recording, self._recording = self._recording, None
        if recording is None:
            return
        try:
            if result.error_in_exec is None:
                recording.close()
            else:
                recording.fail(result.error_in_exec)
            self._show(recording)
        except Exception as error:
            because = f"{type(error).__name__}: {error}"
            print(
                f"stabdiag: the report failed: {because}; the run is kept in {recording.path}",
                file=sys.stderr,
            )

    def _show(self, recording: Watch) -> None:
        if not recording.run.steps:
            print("stabdiag: this cell trained nothing that could be recorded", file=sys.stderr)
        elif in_a_frontend():
            shown: list[Any] = [recording.report()]
            display(*(shown if self._live else [recording.diagnosis, *shown]))
        else:
            for _, line in told(recording):
                print(f"stabdiag: {line}", file=sys.stderr)
