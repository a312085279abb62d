"""Lightning: `Trainer(..., callbacks=[StabdiagCallback()])`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from stabdiag.adapters.hosted import Hosted
from stabdiag.api import Watch


class StabdiagCallback(Callback):
    """Records each `fit` of the Trainer, on every process; findings go to Lightning's logger.

    The options are those of `stabdiag.watch`.
    """

    def __init__(
        self,
        log_dir: str | Path = "stabdiag-runs",
        name: str | None = None,
        budget: str | float = "2%",
        every: int | None = None,
        keep_batches: int = 0,
    ) -> None:
        log = logging.getLogger("lightning.pytorch.stabdiag")
        self._hosted = Hosted(log, True, log_dir, name, budget, every, keep_batches)

    @property
    def run(self) -> Watch | None:
        """The last recording, None before the first."""
        return self._hosted.watch

    def on_train_start(self, *_args: Any) -> None:
        self._hosted.begin()

    def on_train_end(self, *_args: Any) -> None:
        self._hosted.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._hosted.fail(exception)
