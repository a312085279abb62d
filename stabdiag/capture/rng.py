"""The state of the global random number generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


class RandomState:
    """That of torch on the host and on accelerators, of Python and of numpy, as it was at construction.

    Both ways are work of the host alone: an accelerator's generator keeps a seed and an offset there.
    """

    def __init__(self) -> None:
        self._host = torch.get_rng_state()
        self._devices = [(module, module.get_rng_state_all()) for module in _accelerators()]
        self._python = random.getstate()
        self._numpy = np.random.get_state()

    def restore(self) -> None:
        torch.set_rng_state(self._host)
        for module, states in self._devices:
            module.set_rng_state_all(states)
        random.setstate(self._python)
        np.random.set_state(self._numpy)


def _accelerators() -> Iterator[Any]:
    for name in ("cuda", "xpu"):
        module = getattr(torch, name)
        if module.is_available() and module.is_initialized():
            yield module
