"""Where the layers meet: what `import stabdiag` offers."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from stabdiag.analysis.diagnose import diagnose, report_block
from stabdiag.core.cadence import Cadence
from stabdiag.core.config import Configuration, load_configuration
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.event import Event
from stabdiag.core.finding import Findings
from stabdiag.core.layer_loss import LayerLosses
from stabdiag.core.run import INSIDE, Run, RunInfo
from stabdiag.core.verification import marked
from stabdiag.store.directory import create_run_directory, is_run, page_of, resolve_run
from stabdiag.store.events import EventLog
from stabdiag.store.findings import write_findings
from stabdiag.store.flight import settle
from stabdiag.store.follower import Follower
from stabdiag.store.info import write_info
from stabdiag.store.reader import load as load_directory
from stabdiag.store.verification import read_verification

if TYPE_CHECKING:
    import torch

    from stabdiag.render.notebook_live import LiveView

MESSAGE = 2000
"""Characters of an exception's message that are kept."""

__all__ = ["ModelComparison", "Report", "Watch", "compare_models", "diagnose", "load", "report", "watch"]


def load(path: str | Path | None = None, *, names: Mapping[str, str] | None = None) -> Run:
    """A recorded run: a run directory, or the latest of a folder of them (default `stabdiag-runs`); or the
    log of another tool: TensorBoard event files, a Hugging Face `trainer_state.json`, wandb's `.wandb` file,
    CSV or JSON lines of metrics.

    `names` says which series the numbers of such a log are where their own names do not tell:
    `{"training/cost": "run.loss"}`. Raises StabdiagError where there is none.
    """
    return load_directory(resolve_run(Path(path) if path is not None else None), names=names)


@dataclass(frozen=True)
class Report:
    """A page that was written. A notebook shows it in place."""

    path: Path
    run: Run
    diagnosis: Diagnosis

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Report({str(self.path)!r}, verdict={self.diagnosis.verdict!r})"

    def _repr_html_(self) -> str:
        from stabdiag.render.notebook import page_frame

        return page_frame(self.run, self.diagnosis)


def report(run: Run, config: Configuration | None = None) -> Report:
    """Diagnoses a run and writes `report.html` and `findings.json` into its directory; of another tool's log
    only the page, into the working directory."""
    from stabdiag.render.page import write_page

    page = page_of(run.path)
    diagnosis = marked(diagnose(run, config), read_verification(run.path))
    if run.path is None or is_run(run.path):
        write_findings(page.parent, diagnosis)
    write_page(run, diagnosis, page)
    return Report(page, run, diagnosis)


class Watch:
    """A recording in this process. Use it in a `with` statement, or call `close` in the end.

    `leads`: whether this process keeps the books of the run, as one of those that train together does.
    """

    opened: ClassVar[WeakSet[Watch]] = WeakSet()
    """Those that record now."""

    def __init__(
        self,
        path: Path,
        info: RunInfo,
        cadence: Cadence,
        config: Configuration,
        curvature: Callable[[], torch.Tensor] | None = None,
        leads: bool = True,
        adopts: bool = False,
    ) -> None:
        from stabdiag.capture.adopting import Adopting
        from stabdiag.capture.session import Session

        self.path = path
        self.leads = leads
        self._info = info
        self._config = config
        self._live: LiveView | None = None
        self._session: Session | None = (Adopting if adopts else Session)(path, cadence, curvature)
        if leads:
            write_info(path, info)
        Watch.opened.add(self)

    def record(self, models: Sequence[torch.nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> None:
        if self._session is not None:
            self._session.watch(models, optimizers)

    @property
    def run(self) -> Run:
        """The run as far as it is recorded."""
        return load_directory(self.path)

    @property
    def diagnosis(self) -> Diagnosis:
        return diagnose(self.run, self._config)

    @property
    def findings(self) -> Findings:
        """What the analysis says now, most important first; at any time, while training too."""
        return Findings(self.diagnosis.findings)

    def live(self) -> None:
        """Shows in a notebook how the training goes, in place, until the recording ends."""
        from stabdiag.render.notebook_live import LiveView

        if self._session is not None and self._live is None and self.leads:
            self._live = LiveView(Follower(self.path).refresh, self._config)
            self._live.start()

    def report(self) -> Report:
        """Writes the page; a notebook shows it, elsewhere its `path` tells where it is."""
        return report(self.run, self._config)

    def close(self, exit_status: int = 0) -> None:
        """Ends the recording; training may go on."""
        if self._session is None:
            return
        self._session.end()
        self._session = None
        Watch.opened.discard(self)
        if self._live is not None:
            self._live.finish()
        if not self.leads:
            return
        write_info(self.path, replace(self._info, ended=time.time(), exit_status=exit_status))
        diagnosis = self.diagnosis
        if settle(self.path, "", diagnosis.critical):
            diagnosis = replace(diagnosis, run=report_block(self.run, diagnosis.incidents))
        write_findings(self.path, diagnosis)

    def fail(self, error: BaseException) -> None:
        """Ends the recording because of `error`, which becomes part of it."""
        if self._session is not None:
            data = {"type": type(error).__name__, "message": str(error)[:MESSAGE]}
            with contextlib.suppress(OSError):  # the disk is full
                EventLog(self.path).append(Event("exception", time.time(), self._session.steps, 0, data))
            self._session.write_flight(f"the script ended with {type(error).__name__}")
        self.close(exit_status=1)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.fail(error)

    def _repr_html_(self) -> str:
        from stabdiag.render.notebook import findings_fragment

        run = self.run
        return findings_fragment(run, diagnose(run, self._config))


def watch(
    model: torch.nn.Module | Sequence[torch.nn.Module] | None = None,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] = (),
    *,
    log_dir: str | Path = "stabdiag-runs",
    name: str | None = None,
    budget: str | float = "2%",
    every: int | None = None,
    keep_batches: int = 0,
    curvature: Callable[[], torch.Tensor] | None = None,
) -> Watch:
    """Records the training of `model` by `optimizer` from now on; without them, whatever trains.

    Both may be several. An optimizer that is not given joins when it first steps, if it holds parameters
    of the models. `log_dir` is the folder in which the run directory is made, `name` the directory's own
    name. The processes of a `torch.distributed` world share one run directory, where each calls this
    after the world was joined. `budget` is the share of the training time that recording may take, `off`
    for no limit; `every` in its place records every `every`-th step whole. The batches of the last
    `keep_batches` steps are held in memory, and written when something happens.

    `curvature` returns a scalar loss of the models, of which to measure the curvature. Without it that is the
    loss of the step, computed once more, where that can be done: the coverage in the run's events says where
    it cannot. It is called a few times in each step that measures curvature, with other weights in the
    models, and has to give the same loss each time but for them: of a batch that stays the same, and in full
    precision. What it does to the models and to random number generators is undone; other effects are not.

    Raises StabdiagError where no run directory can be made.
    """
    import stabdiag
    from stabdiag.capture.rendezvous import meet

    models: Any = model if model is None or isinstance(model, Sequence) else [model]
    optimizers: Any = [optimizer] if not isinstance(optimizer, Sequence) else optimizer
    cadence = Cadence.parse(budget, every, keep_batches)
    path, leads = meet(lambda: create_run_directory(Path(log_dir), name or "watch", exact=name is not None))
    info = RunInfo(
        command=INSIDE,
        started=time.time(),
        host=platform.node(),
        versions={"python": platform.python_version(), "stabdiag": stabdiag.__version__},
        configuration=cadence.to_json(),
    )
    config = load_configuration(Path.cwd())
    started = Watch(path, info, cadence, config, curvature, leads, adopts=models is None)
    if models is not None:
        started.record(models, optimizers)
    return started


class ModelComparison(LayerLosses):
    """What `compare_models` found: `print` and a notebook show a table, `table` and `frame()` hold all."""

    def __str__(self) -> str:
        from stabdiag.render.layer_losses import text

        return text(self)

    def _repr_html_(self) -> str:
        from stabdiag.render.layer_losses import fragment

        return fragment(self)


def compare_models(a: torch.nn.Module, b: torch.nn.Module, batch: Any) -> ModelComparison:
    """Ranks the layers of `b`, a quantised, pruned or rounded copy of `a`, by what they lose on `batch`.

    Both run once, in evaluation mode and without gradients; a mapping is given as keyword arguments, a tuple
    as positional ones, anything else as the one argument. Modules are matched by name, whatever their types.
    With x the output of a module of `a` and y that of its counterpart, over all elements of all its calls,

        error = ‖x − y‖ / ‖x‖    cosine = x·y / (‖x‖ ‖y‖)    SNR = 20 log10(‖x‖ / ‖x − y‖) dB

    once `accumulated`, where y is from `b` on the same batch, and once `introduced` by the layer itself:
    where y is what the counterpart returns for the inputs of `a`'s module, rounded to the type that `b`
    works in there. Layers are ranked by what they introduce; modules around others stand in `containers`.

    The outputs of all modules of `b` are held meanwhile. Afterwards all is as before, to the bit: modes,
    buffers, random number generators, hooks. What a forward pass raises is passed on.
    """
    from stabdiag.capture.model_losses import layer_losses

    found = layer_losses(a, b, batch)
    return ModelComparison(found.layers, found.containers, found.only_a, found.only_b, found.notes)
