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
        self._shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self._parts: list[tuple[list[str], torch.Tensor]] = []
        self._events: list[torch.Event] = []
        by_device: dict[torch.device, list[str]] = {}
        for name, tensor in tensors.items():
            by_device.setdefault(tensor.device, []).append(name)
        for device, names in by_device.items():
            flat = torch.cat([tensors[name].detach().reshape(-1).to(torch.float32) for name in names])
            if device.type != "cpu":
                host = torch.empty(flat.shape, pin_memory=True)
                flat = host.copy_(flat, non_blocking=True)
                event = torch.Event(device)
                event.record()
                self._events.append(event)
            self._parts.append((names, flat))

    @property
    def asynchronous(self) -> bool:
        return bool(self._events)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        for event in self._events:
            event.synchronize()
        result = {}
        for names, flat in self._parts:
            array, start = flat.numpy(), 0
            for name in names:
                end = start + int(np.prod(self._shapes[name]))
                result[name] = array[start:end].reshape(self._shapes[name])
                start = end
        return result
