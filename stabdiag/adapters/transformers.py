"""Hugging Face Trainer: `Trainer(..., callbacks=[StabdiagCallback()])`."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from stabdiag.adapters.hosted import HostCallback


class StabdiagCallback(HostCallback, TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Records each `train()` of the Trainer, on every process; findings go to transformers' logger.

    The options are those of `stabdiag.watch`. Trainer tells its callbacks of no error: a recording that one
    leaves open is closed when the notebook's cell, the process or the next `train()` says so, or `close`.
    """

    logger = "transformers.stabdiag"

    def close(self) -> None:
        """Ends a recording that an error left open."""
        self._hosted.end()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        self._hosted.begin(state.max_steps - state.global_step, "Trainer")

    def on_train_end(self, *_args: Any, **_kwargs: Any) -> None:
        self._hosted.end()
