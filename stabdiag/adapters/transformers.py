"""Hugging Face Trainer: `Trainer(..., callbacks=[StabdiagCallback()])`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from stabdiag.adapters.hosted import Hosted
from stabdiag.api import Watch


class StabdiagCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Records each `train()` of the Trainer, on every process; findings go to transformers' logger.

    The options are those of `stabdiag.watch`. Trainer tells its callbacks of no error: a recording that one
    leaves open is closed when the notebook's cell, the process or the next `train()` says so, or `close`.
    """

    def __init__(
        self,
        log_dir: str | Path = "stabdiag-runs",
        name: str | None = None,
        budget: str | float = "2%",
        every: int | None = None,
        keep_batches: int = 0,
    ) -> None:
        log = logging.getLogger("transformers.stabdiag")
        self._hosted = Hosted(log, True, log_dir, name, budget, every, keep_batches)

    @property
    def run(self) -> Watch | None:
        """The last recording, None before the first."""
        return self._hosted.watch

    def close(self) -> None:
        """Ends a recording that an error left open."""
        self._hosted.end()

    def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
        self._hosted.begin()

    def on_train_end(self, *_args: Any, **_kwargs: Any) -> None:
        self._hosted.end()
