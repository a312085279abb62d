"""How the processes of a world share a parameter, read off without asking any of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from stabdiag.capture.tensors import local
from stabdiag.core.site import Site

FLAT = "FullyShardedDataParallel"


@dataclass(frozen=True, slots=True)
class Placement:
    """`kind` is `replicated`, `sharded` or empty, as `Site.placement` has it.

    `shape` is that of the whole, `part` tells apart the shards, `local_size` is the number of elements
    here. `copies`: whether other processes are to hold the very same elements.
    """

    kind: str
    shape: tuple[int, ...]
    part: int
    local_size: int
    copies: bool


def in_world() -> bool:
    """Whether torch.distributed has joined this process with others."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


class Placements:
    """Of the parameters that `modules` own; wrappers of data parallelism count among the modules. `wrappers`
    are those that keep copies alike."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._known: dict[int, Placement] = {}
        self.wrappers: list[nn.Module] = []
        if not in_world():
            return
        for module in modules:
            if isinstance(module, DistributedDataParallel):
                self._replicated(module)
            elif type(module).__name__ == FLAT:
                self._flat(module)

    def _replicated(self, wrapper: DistributedDataParallel) -> None:
        if wrapper.process_group.size() > 1:
            self.wrappers.append(wrapper)
            for name, p in wrapper.module.named_parameters():
                if name not in wrapper.parameters_to_ignore:
                    shape = tuple(p.shape)
                    self._known[id(p)] = Placement("replicated", shape, 0, p.numel(), True)

    def _flat(self, wrapper: nn.Module) -> None:
        """FullyShardedDataParallel lays all its parameters end to end in one, and cuts that."""
        handle: Any = wrapper._handle
        if handle is None:
            return
        flat, sharded = handle.flat_param, handle.uses_sharded_strategy
        kind, part = ("sharded", handle.rank) if sharded else ("replicated", 0)
        whole = tuple(flat._unpadded_unsharded_size)
        padding = flat._shard_numel_padded if sharded else 0
        self._known[id(flat)] = Placement(kind, whole, part, flat.numel() - padding, not sharded)
        parts = zip(flat._params or (), flat._shapes, flat._shard_param_infos, strict=False)
        for parameter, shape, here in parts:
            size = (here.numel_in_shard or 0) if sharded else shape.numel()
            self._known[id(parameter)] = Placement(kind, tuple(shape), part, size, not sharded)

    def __getitem__(self, parameter: torch.Tensor) -> Placement:
        if is_distributed(parameter):
            return _on_mesh(parameter)
        alone = Placement("", tuple(parameter.shape), 0, parameter.numel(), False)
        return self._known.get(id(parameter), alone)

    def describe(self, site: Site, parameter: torch.Tensor) -> Site:
        """`site` of that parameter, with the shape of the whole."""
        found = self[parameter]
        if not found.kind:
            return site
        return replace(
            site,
            shape=found.shape or site.shape,
            placement=found.kind,
            part=found.part,
            local_size=found.local_size,
        )


def is_distributed(tensor: torch.Tensor) -> bool:
    """Whether it is a DTensor. No import of that class, which programs that have none would pay for."""
    return hasattr(tensor, "_local_tensor") and hasattr(tensor, "placements")


def _on_mesh(tensor: Any) -> Placement:
    """The part is the coordinate of this process along the dimensions of the mesh that cut the tensor."""
    mesh, placements = tensor.device_mesh, tensor.placements
    coordinates: Sequence[int] = mesh.get_coordinate() or [0] * mesh.ndim
    part, parts, copies = 0, 1, 1
    for placement, coordinate, size in zip(placements, coordinates, mesh.shape, strict=True):
        if placement.is_replicate() or placement.is_partial():
            copies *= size
        else:
            part, parts = part * size + coordinate, parts * size
    kind = "sharded" if parts > 1 else "replicated" if copies > 1 else ""
    return Placement(kind, tuple(tensor.shape), part, local(tensor).numel(), copies > 1)


def is_summand(tensor: Any) -> bool:
    """Whether the processes hold terms of a sum that was not taken yet: the norm of one term says
    nothing of the whole. Gradients of replicated parameters between sharded activations are kept so."""
    if not is_distributed(tensor):
        return False
    return any(placement.is_partial() for placement in tensor.placements)


def agreed(tensor: Any) -> torch.Tensor | None:
    """The value that all processes have of a distributed tensor, None where each has a part of it; any
    other tensor as it is."""
    if not is_distributed(tensor):
        plain: torch.Tensor = tensor
        return plain
    whole = all(placement.is_replicate() for placement in tensor.placements)
    return local(tensor) if whole else None
