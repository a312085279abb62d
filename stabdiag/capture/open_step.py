"""What the flight recorder takes note of while a step goes on, and makes numbers of later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from stabdiag.capture.clipping import Clip
from stabdiag.capture.inputs import named_inputs
from stabdiag.capture.kept import KeptStep
from stabdiag.capture.placement import agreed
from stabdiag.capture.random_arrays import TorchStates, other_arrays
from stabdiag.capture.row import Arrays
from stabdiag.stats.fingerprint import BITS, SAMPLE, fingerprint_on_host, mixture, print_of, sample_of

Indices = Callable[[Sequence[torch.Tensor]], list[int]]


class OpenStep:
    """Random states are those at the first call of the model; `kept` copies what all calls were given.

    Of each input it may take a sample, the one that fingerprints are of; of clipping the norms that torch
    took. Both stay on their devices until `tensors`.
    """

    __slots__ = ("_clipped", "_norms", "_samples", "kept", "other_states", "torch_states")

    def __init__(self) -> None:
        self.torch_states: TorchStates | None = None
        self.other_states: dict[str, Any] = {}
        self.kept: KeptStep | None = None
        self._samples: list[tuple[str, torch.Tensor]] = []
        self._clipped: Sequence[torch.Tensor] = ()
        self._norms: torch.Tensor | None = None

    def begin(self, whole: bool) -> None:
        """`whole`: with the states of Python and numpy, which are dear."""
        if self.torch_states is None:
            self.torch_states = TorchStates()
            if whole:
                self.other_states = other_arrays()

    def keep(self, prefix: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.kept = self.kept or KeptStep()
        self.kept.add(prefix, args, kwargs)

    def sample(
        self, prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        for name, tensor in named_inputs(prefix, module, args, kwargs):
            small = tensor.numel() <= SAMPLE  # and then all of it is the sample
            self._samples.append((name, (tensor if small else sample_of(tensor)).clone()))

    def clip(self, clip: Clip) -> None:
        norms, held = None if clip.stacked is None else agreed(clip.stacked), clip.parameters
        if norms is not None:
            if len(norms) < len(held):
                held = [parameter for parameter in held if parameter.grad is not None]
            self._clipped, self._norms = held, norms

    def tensors(self) -> dict[str, torch.Tensor]:
        """What has to travel to the host, as float32: integers as the bits of pairs of such numbers."""
        found = {} if self._norms is None else {"norms": self._norms}
        self._samples = [(name, sample_of(part)) for name, part in self._samples]
        for i, (_, sample) in enumerate(self._samples):
            if _elsewhere(sample):
                found[f"mixture:{i}"] = mixture(sample).reshape(1).view(torch.float32)
                if sample.is_floating_point():
                    found[f"range:{i}"] = torch.stack(sample.aminmax())
        return found

    def norms(self, arrays: Arrays, indices: Indices, parameters: int) -> np.ndarray[Any, Any]:
        """float32 [parameters]: of the gradients before clipping, NaN where not known."""
        norms = np.full(parameters, np.nan, np.float32)
        places = indices(self._clipped)
        if places and len(places) == len(arrays["norms"]):
            norms[places] = arrays["norms"]
        return norms

    def inputs(self, arrays: Arrays) -> dict[str, dict[str, float]]:
        """Statistic -> input -> value; of several calls the fingerprints add up, as those of the run do."""
        prints: dict[str, float] = {}
        lows: dict[str, float] = {}
        highs: dict[str, float] = {}
        for i, (name, sample) in enumerate(self._samples):
            if f"mixture:{i}" in arrays:
                value = print_of(int(np.ascontiguousarray(arrays[f"mixture:{i}"]).view(np.int64)[0]))
                low, high = arrays.get(f"range:{i}", np.full(2, np.nan)).tolist()
            else:
                value, low, high = _measured(sample)
            prints[name] = int(prints.get(name, 0) + value) % 2**BITS
            lows[name] = float(np.minimum(lows.get(name, low), low))
            highs[name] = float(np.maximum(highs.get(name, high), high))
        return {"fingerprint": prints, "min": lows, "max": highs} if prints else {}


def _elsewhere(tensor: torch.Tensor) -> bool:
    """Whether to read it is to wait for a device."""
    return tensor.device.type != "cpu"


def _measured(sample: torch.Tensor) -> tuple[int, float, float]:
    """Fingerprint, lowest and highest value of a sample on the host."""
    if not sample.is_floating_point():
        return fingerprint_on_host(sample.numpy()), np.nan, np.nan
    low, high = sample.aminmax()
    return print_of(int(mixture(sample))), float(low), float(high)
