"""What may act on training while it is recorded. The recorder itself only looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from stabdiag.capture.clipping import Clip
from stabdiag.capture.subject import Subject

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""


class Actor(Protocol):
    """Told by the session of what training does, each time in the place where acting on it is exact."""

    def forward_begins(self, subject: Subject, number: int, scaler: Any) -> None:
        """The script is about to call its model with gradients enabled, in the optimizer step `number`;
        `scaler` is its gradient scaler."""

    def backward_begins(
        self, subject: Subject, number: int, roots: Sequence[Any], scale: torch.Tensor | None
    ) -> None: ...

    def clips(self, subject: Subject, number: int, clip: Clip) -> float:
        """Gradients are about to be clipped; returns the norm to clip them at."""

    def step_begins(
        self, subject: Subject, number: int, optimizer: torch.optim.Optimizer, call: Call
    ) -> Call | None:
        """Before the recorder looks at gradients and settings. May return other arguments for the step."""

    def step_taken(self, optimizer: torch.optim.Optimizer) -> None:
        """The weights have moved; the recorder is yet to look at them."""

    def step_ends(self, optimizer: torch.optim.Optimizer) -> None:
        """The recorder has looked."""

    def end(self) -> None: ...
