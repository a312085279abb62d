"""What the ranks of test_distributed.py run: trains a model shared in one way or another, bare and then
recorded, and says whether both ended at the same bits."""

import gc
import sys
import time
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import stabdiag

STEPS = 8
FAULT_STEP = 5
PAUSE = 0.5


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, 6)
        self.head = nn.Linear(6, 3)
        # DistributedDataParallel sends buffers round before each forward pass: the fast wait there.
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x).relu()))


def shared(way: str) -> tuple[nn.Module, nn.Module]:
    """The model, and what is called."""
    torch.manual_seed(0)
    model = Net()
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    if way == "sharded":
        for part in (model.first, model.second, model):
            fully_shard(part, mesh=mesh)
        return model, model
    if way == "parallel":
        plan = {"first": ColwiseParallel(), "second": RowwiseParallel()}
        return (parallel := parallelize_module(model, mesh, plan)), parallel
    return model, DistributedDataParallel(model)


def batch(step: int, way: str) -> torch.Tensor:
    """Of this rank: a part of the whole batch, or all of it where the model is cut by its tensors."""
    whole = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
    if way == "parallel":
        return whole
    size = len(whole) // distributed.get_world_size()
    return whole[distributed.get_rank() * size :][:size]


def train(way: str, folder: Path | None) -> list[torch.Tensor]:
    model, called = shared(way)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    wanted = folder is not None and (way != "half" or distributed.get_rank() == 0)
    recording = wanted and stabdiag.watch(called, optimizer, log_dir=folder, name=way, every=2)
    last = distributed.get_world_size() - 1
    for step in range(STEPS):
        x = batch(step, way)
        if way == "lost" and step == FAULT_STEP and distributed.get_rank() == last:
            x = x * float("nan")
        if way == "slow" and step == FAULT_STEP and distributed.get_rank() == last:
            time.sleep(PAUSE)
        called(x).square().mean().backward()
        if way != "parallel":  # torch does not clip what is cut and what is not together
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
        optimizer.zero_grad()
        if way == "parted" and step == FAULT_STEP and distributed.get_rank() == last:
            with torch.no_grad():
                model.second.weight[0, 0] += 1e-3
    if recording:
        recording.close()
    return [getattr(p, "_local_tensor", p).detach().clone() for p in model.parameters()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    distributed.init_process_group("gloo")
    for way in sys.argv[2:]:
        bare = train(way, None)
        same = all(
            one.equal(other) or bool(one.isnan().all())
            for one, other in zip(train(way, Path(sys.argv[1])), bare, strict=True)
        )
        # One write: print makes two of an unbuffered stream, and the lines of ranks would mix.
        said = "the same" if same else "CHANGED"
        sys.stdout.write(f"rank {distributed.get_rank()}, {way}: {said}\n")
        sys.stdout.flush()
    gc.collect()  # a model that is alive at the end holds the threads of gloo, which abort the process
    distributed.barrier()
    distributed.destroy_process_group()
