"""The calls of torch's loss functions that a script makes, seen from within."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import _reduction
from torch.nn import functional as F

from stabdiag.capture.patch import Patch

LOSSES: Mapping[str, str] = {
    "cross_entropy": "cross-entropy",
    "nll_loss": "cross-entropy",
    "binary_cross_entropy": "binary-cross-entropy",
    "binary_cross_entropy_with_logits": "binary-cross-entropy",
    "mse_loss": "mean-squared-error",
    "l1_loss": "absolute-error",
    "smooth_l1_loss": "smooth-absolute-error",
    "huber_loss": "huber",
    "kl_div": "kl-divergence",
}
"""Functions of torch.nn.functional, as the event `loss` names what they compute."""

REDUCED = ("reduction", "reduce", "size_average")
Heard = Callable[[str, Mapping[str, Any]], None]


class LossCalls:
    """Calls `heard(name, arguments)` of each call of these functions, before it computes anything.

    They all ask a helper of torch's what their reduction means. Taking its place, for as long as is needed,
    leaves no frame of ours in a traceback, and serves modules and functions alike, however imported.
    """

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._busy = False
        self._patch = Patch(_reduction, "get_enum", self._asked)

    def _asked(self, reduction: str) -> int:
        frame = sys._getframe(1)
        name = frame.f_code.co_name
        if name in LOSSES and frame.f_globals is vars(F) and not self._busy:
            arguments = dict(frame.f_locals)
            self._busy = True
            try:
                self._heard(name, arguments)
            finally:
                self._busy = False
        meaning: int = self._patch.original(reduction)
        return meaning

    def remove(self) -> None:
        self._patch.remove()


def mean_loss(name: str, arguments: Mapping[str, Any]) -> torch.Tensor:
    """What the function gives for these arguments as a mean, 0-d, whatever reduction was asked for."""
    function = getattr(F, name)
    wanted = [key for key in inspect.signature(function).parameters if key not in REDUCED]
    given = {key: arguments[key] for key in wanted if key in arguments}
    value: torch.Tensor = function(**given, reduction="batchmean" if name == "kl_div" else "mean")
    return value
