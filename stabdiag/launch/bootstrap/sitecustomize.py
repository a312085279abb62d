"""Starts the recorder in a process that imports torch; every other process goes on untouched.

`stabdiag run` puts this folder first on PYTHONPATH, so that Python's own start-up imports this file in
place of the user's sitecustomize, which is imported from here in turn. Standard library only, and
nothing here may raise into the process, print, or leave a frame in its tracebacks.
"""

# ruff: noqa: PTH100, PTH118, PTH120 -- pathlib would cost every process of the target its import

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class TorchImport:
    """A meta-path finder that calls `attach` right after torch was imported, and then steps aside."""

    def __init__(self, run: str) -> None:
        self.run = run

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torch":
            return None
        finders = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, path, target) for finder in finders)
        spec = next((found for found in specs if found is not None), None)
        if spec is not None and spec.loader is not None:
            self.follow(spec.loader)
        return spec

    def follow(self, loader: Loader) -> None:
        # On the loader itself, and undone when it is used: torch.__loader__ stays what it would be.
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            execute(module)
            self.attach()

        # Python trims the frames of this file name from a traceback when the import of torch fails.
        exec_module.__code__ = exec_module.__code__.replace(co_filename="<frozen importlib._bootstrap>")
        try:
            loader.exec_module = exec_module  # type: ignore[method-assign]
        except AttributeError as error:
            self.report("recorder-error", probe="bootstrap", error=repr(error), traceback="")

    def attach(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        try:
            mark(self.run, "torch")
            from stabdiag.launch.attach import attach

            attach()
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "stabdiag":
                because = f"{sys.executable} has no stabdiag: {error}"
                self.report("coverage", what=f"process {os.getpid()}", because=because)
            else:
                self.report_error(error)
        except Exception as error:
            self.report_error(error)

    def report_error(self, error: Exception) -> None:
        import traceback

        lines = "".join(traceback.format_exception(error))
        self.report("recorder-error", probe="start", error=repr(error), traceback=lines)

    def report(self, event: str, **data: str) -> None:
        try:
            import json
            import time

            line = json.dumps({"event": event, "time": time.time(), "step": None, "rank": 0, **data}) + "\n"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            file = os.open(os.path.join(self.run, "events.jsonl"), flags, 0o666)
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)
        except Exception:
            return  # A full disk, or a run directory that is gone: training matters more.


def mark(run: str, what: str) -> None:
    """Leaves an empty file `.<what>`: the closing line tells from it how far the recorder came."""
    try:
        os.close(os.open(os.path.join(run, "." + what), os.O_WRONLY | os.O_CREAT, 0o666))
    except OSError:
        return


def enter() -> None:
    run = os.environ.get("STABDIAG_RUN")
    # Compile workers of inductor import torch, and never train.
    if run and not any("compile_worker" in word for word in sys.orig_argv[:4]):
        mark(run, "python")
        sys.meta_path.insert(0, TorchImport(run))


def step_aside() -> None:
    """Takes this folder off sys.path; PYTHONPATH keeps it, for the processes that this one starts."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    sys.path_importer_cache.pop(here, None)


enter()
step_aside()

# The user's own, if there is one. If not, Python's start-up ignores the ImportError, as it would have.
del sys.modules["sitecustomize"]
import sitecustomize  # type: ignore[import-not-found]  # noqa: E402, F401
