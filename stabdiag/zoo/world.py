"""A training in several processes, which average their gradients."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stabdiag.zoo.training import Batch, Loss, Training


class Whole(nn.Module):
    """A model and its loss as one module, so that DistributedDataParallel sees the call."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module = module
        self._loss = loss

    def forward(self, *batch: Tensor) -> Tensor:
        return self._loss(batch)


def share(training: Training, rank: int, world: int) -> None:
    """Makes `training` rank `rank` of `world`: batches of its own, and gradients averaged over all."""
    parts = training.parts
    sound = parts.batches
    parts.batches = lambda index: sound(index * world + rank)
    parts.model = shared = DistributedDataParallel(Whole(parts.model, training.loss))

    def loss(batch: Batch) -> Tensor:
        value: Tensor = shared(*batch)
        return value

    training.loss = loss


def in_world(world: int, store: Path, work: Callable[[int], None]) -> None:
    """Calls `work` with its rank in `world` processes: this one, as rank 0, and forks of it."""

    def joined(rank: int) -> None:
        torch.set_num_threads(1)
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=world
        )
        try:
            work(rank)
        finally:
            torch.distributed.destroy_process_group()

    context = multiprocessing.get_context("fork")
    others = [context.Process(target=joined, args=(rank,)) for rank in range(1, world)]
    for process in others:
        process.start()
    joined(0)
    for process in others:
        process.join()
