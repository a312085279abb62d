"""Accelerate: `Accelerator(log_with=StabdiagTracker())`."""

from __future__ import annotations

from itertools import count
from typing import Any

import torch
from accelerate.tracking import GeneralTracker  # type: ignore[import-untyped, unused-ignore]
from torch.nn.modules.module import register_module_forward_pre_hook

from stabdiag.adapters.hosted import HostCallback, recorded_by
from stabdiag.api import Watch
from stabdiag.capture.hooks import Hook
from stabdiag.capture.placement import in_world
from stabdiag.capture.sink import rank_and_world

_numbers = count()


class StabdiagTracker(HostCallback, GeneralTracker):  # type: ignore[misc, unused-ignore]
    """Records what trains from `accelerator.init_trackers` to `accelerator.end_training`; findings go to
    Accelerate's logger.

    The options are those of `stabdiag.watch`. What the script logs by itself is not kept: the recorder
    measures loss, learning rate and gradients where they arise.
    """

    name = "stabdiag"
    requires_logging_directory = False
    logger = "accelerate.stabdiag"
    tells_its_end = False

    def prepare(self) -> None:
        # Accelerate starts and ends trackers in the main process alone: the others follow that one.
        self._key = f"stabdiag/tracker/{next(_numbers)}"
        if rank_and_world()[0] > 0:
            self._waiting = register_module_forward_pre_hook(Hook(self._join))

    @property
    def tracker(self) -> Watch | None:
        """The last recording, None before the first."""
        return self._hosted.watch

    def start(self) -> None:
        self._hosted.begin()
        if self._hosted.is_open and in_world():
            _store().set(self._key, "")

    def finish(self) -> None:
        self._hosted.end()

    def _join(self, *_: Any) -> None:
        """In a process that is not the main one, before each forward pass, until the main one records."""
        if recorded_by():
            self._waiting.remove()
        elif torch.is_grad_enabled() and in_world() and _store().check([self._key]):
            self._waiting.remove()
            self._hosted.begin()


def _store() -> Any:
    return torch.distributed.distributed_c10d._get_default_store()
