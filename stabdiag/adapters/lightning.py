"""Lightning: `Trainer(..., callbacks=[StabdiagCallback()])`."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback

from stabdiag.adapters.hosted import HostCallback


class StabdiagCallback(HostCallback, Callback):
    """Records each `fit` of the Trainer, on every process; findings go to Lightning's logger.

    The options are those of `stabdiag.watch`.
    """

    logger = "lightning.pytorch.stabdiag"

    def on_train_start(self, *_args: Any) -> None:
        self._hosted.begin()

    def on_train_end(self, *_args: Any) -> None:
        self._hosted.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._hosted.fail(exception)
