"""The state of the global random number generators as arrays, which need no pickle."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

NO_DEVICES = np.zeros((0, 0), np.uint8)


class TorchStates:
    """Those of the host and of each CUDA device, as they were at construction; work of the host alone."""

    __slots__ = ("_devices", "_host")

    def __init__(self) -> None:
        self._host = torch.default_generator.get_state()
        self._devices = [generator.get_state() for generator in torch.cuda.default_generators]

    def arrays(self) -> dict[str, NDArray[np.uint8]]:
        """`torch` uint8 [bytes], `cuda` uint8 [devices, bytes]."""
        cuda = torch.stack(self._devices).numpy() if self._devices else NO_DEVICES
        return {"torch": self._host.numpy(), "cuda": cuda}


def other_arrays() -> dict[str, Any]:
    """`python` and `numpy`: keys and position of the Mersenne Twister, uint32 [625]; and the normal number
    that each holds back, NaN where none. Without numpy's where a script has given it another generator."""
    _, words, gauss = random.getstate()
    arrays = {"python": np.array(words, np.uint32), "python_gauss": math.nan if gauss is None else gauss}
    state: Any = np.random.get_state(legacy=False)
    if state["bit_generator"] == "MT19937":
        own = state["state"]
        arrays["numpy"] = np.append(own["key"], np.uint32(own["pos"]))
        arrays["numpy_gauss"] = state["gauss"] if state["has_gauss"] else math.nan
    return arrays
