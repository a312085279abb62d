"""One copy to the host a step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray


class HostCopy:
    """Float tensors of any shapes and devices on their way to the host as float32.

    The copy is taken at once: the tensors may be overwritten afterwards. From an accelerator it is
    asynchronous, one transfer a device, and `arrays` waits for it; on the host there is no wait.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._arrays: dict[str, NDArray[np.float32]] = {}
        self._parts: list[tuple[list[tuple[str, torch.Size]], torch.Tensor]] = []
        self._events: list[torch.Event] = []
        by_device: dict[torch.device, list[str]] = {}
        for name, tensor in tensors.items():
            if tensor.device.type == "cpu":
                self._arrays[name] = np.array(tensor.detach().to(torch.float32).numpy())
            else:
                by_device.setdefault(tensor.device, []).append(name)
        for device, names in by_device.items():
            flat = torch.cat([tensors[name].detach().reshape(-1).to(torch.float32) for name in names])
            host = torch.empty(flat.shape, pin_memory=True).copy_(flat, non_blocking=True)
            event = torch.Event(device)
            event.record()
            self._events.append(event)
            self._parts.append(([(name, tensors[name].shape) for name in names], host))

    @property
    def asynchronous(self) -> bool:
        return bool(self._events)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        for event in self._events:
            event.synchronize()
        for named, host in self._parts:
            array, start = host.numpy(), 0
            for name, shape in named:
                end = start + shape.numel()
                self._arrays[name] = array[start:end].reshape(tuple(shape))
                start = end
        return self._arrays
