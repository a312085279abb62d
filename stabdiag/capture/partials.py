"""A log, on the device, of what one family measured in one step."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from stabdiag.stats.family import Family, Rows, merge
from stabdiag.stats.sample import slabs, strided

CHUNK = 64


class PartialLog:
    """Appends one row of `family.width` numbers, and a sample, a measured tensor to preallocated buffers.

    Nothing is merged while training runs: a module that is called often simply has many rows, and the
    host merges them after the one copy of the step. Rows of several devices lie in buffers of their own.
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self._chunks: dict[torch.device, list[torch.Tensor]] = {}
        self._samples: dict[torch.device, list[torch.Tensor]] = {}
        self._views: dict[torch.device, list[tuple[torch.Tensor, ...]]] = {}
        self._sizes: dict[torch.device, list[int]] = {}
        self._entries: dict[torch.device, list[tuple[int, int]]] = {}

    def add(self, site: int, tensor: torch.Tensor) -> tuple[torch.device, int]:
        """Measures `tensor` for a site; what is returned lets `repeat` say the same of another one."""
        device = tensor.device
        sizes = self._sizes.setdefault(device, [])
        views = self._views.setdefault(device, [])
        row = len(sizes)
        if row == len(views):
            chunk = torch.zeros(CHUNK, self.family.width, device=device)
            self._chunks.setdefault(device, []).append(chunk)
            views.extend(part.unbind() for part in chunk.unbind())
            if self.family.sample:
                samples = torch.zeros(CHUNK, self.family.sample, device=device)
                self._samples.setdefault(device, []).extend(samples.unbind())
        self.family.measure(tensor, views[row])
        if self.family.sample:
            keep_sample(tensor, self._samples[device][row])
        sizes.append(tensor.numel())
        self._entries.setdefault(device, []).append((site, row))
        return device, row

    def repeat(self, site: int, key: tuple[torch.device, int]) -> None:
        device, row = key
        self._entries[device].append((site, row))

    def harvest(self) -> LogHarvest:
        """The rows since the last harvest, still on their devices."""
        taken = LogHarvest(self.family, {}, {}, {})
        for device, sizes in self._sizes.items():
            if sizes:
                rows = torch.cat(self._chunks[device])[: len(sizes)]
                if self.family.sample:
                    samples = torch.stack(self._samples[device][: len(sizes)])
                    rows = torch.cat([rows, self.family.reduce(samples)], dim=1)
                taken.rows[str(device)] = rows
                taken.sizes[str(device)] = np.array(sizes, np.int64)
                taken.entries[str(device)] = np.array(self._entries[device], np.int64)
                sizes.clear()
                self._entries[device].clear()
        return taken


def keep_sample(tensor: torch.Tensor, row: torch.Tensor) -> None:
    """Copies elements of `tensor` into `row`, float32 [sample]: all of them and zeros, or as many as there
    is room for."""
    size, room = tensor.numel(), row.numel()
    if size >= room:
        sample = slabs(tensor, room)
        if sample.numel() > room:  # it has gaps in memory
            sample = strided(tensor, room)[:room]
        row.view(sample.shape).copy_(sample)
    else:
        row[:size].view(tensor.shape).copy_(tensor)
        row[size:].zero_()


class LogHarvest:
    """What a log held at the end of a step; `rows` is what has to travel to the host."""

    def __init__(
        self,
        family: Family,
        rows: dict[str, torch.Tensor],
        sizes: dict[str, NDArray[np.int64]],
        entries: dict[str, NDArray[np.int64]],
    ) -> None:
        self.family = family
        self.rows = rows
        self.sizes = sizes
        self.entries = entries

    def columns(self, arrays: dict[str, Rows], sites: int) -> dict[str, Rows]:
        """Statistic -> [sites], of the rows as they arrived: device -> [rows, width]."""
        owners, partials = [np.zeros(0, np.int64)], [np.zeros((0, len(self.family.merge)), np.float32)]
        for device, measured in arrays.items():
            site, row = self.entries[device].T
            owners.append(site)
            partials.append(self.family.lift(measured, self.sizes[device])[row])
        merged = merge(self.family, np.concatenate(owners), np.concatenate(partials), sites)
        return self.family.finish(merged)
