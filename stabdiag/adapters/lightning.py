"""Lightning: `Trainer(..., callbacks=[StabdiagCallback()])`."""

from __future__ import annotations

import contextlib
from typing import Any

from lightning.pytorch.callbacks import Callback

from stabdiag.adapters.hosted import HostCallback


class StabdiagCallback(HostCallback, Callback):
    """Records each `fit` of the Trainer, on every process; findings go to Lightning's logger.

    The options are those of `stabdiag.watch`.
    """

    logger = "lightning.pytorch.stabdiag"

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        steps = None
        with contextlib.suppress(Exception):  # there are trainings of which Lightning cannot tell
            steps = trainer.estimated_stepping_batches - trainer.global_step
        self._hosted.begin(steps, "Trainer")

    def on_train_end(self, *_args: Any) -> None:
        self._hosted.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._hosted.fail(exception)
