"""What the ranks of test_world.py run: a guarded training whose losses are bad on one rank alone. Says which
steps were left out, and a checksum of the weights."""

import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from stabdiag.capture.session import Session
from stabdiag.core.cadence import Cadence
from stabdiag.intervene.controller import Controller
from stabdiag.intervene.request import Acting
from stabdiag.store.reader import load


def shared(way: str) -> tuple[nn.Module, nn.Module]:
    """The model, and what is called."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    if way == "copies":
        return model, DistributedDataParallel(model)
    if way == "sharded":
        fully_shard(model, mesh=init_device_mesh("cpu", (distributed.get_world_size(),)))
    return model, model


def train(way: str, folder: Path) -> str:
    rank = distributed.get_rank()
    session = Session(folder, Cadence(every=1), actor=Controller(Acting.parse(["skip-batch=6"], guard=True)))
    model, called = shared(way)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(50):
        torch.manual_seed(2 * step + rank)
        factor = {40: float("nan"), 45: 1e4}.get(step, 1.0) if rank == 1 else 1.0
        optimizer.zero_grad()
        (called(torch.randn(8, 6)).square().mean() * factor).backward()
        optimizer.step()
    session.end()
    events = load(folder).events_of("intervention")
    skipped = sorted(
        {e.step for e in events if e.rank == rank and e.data["action"] in ("skipped", "clipped")}
    )
    weights = [getattr(p, "_local_tensor", p) for p in model.parameters()]
    finite = all(torch.isfinite(w).all() for w in weights)
    total = sum(w.double().sum().item() for w in weights)
    return f"{way}: {skipped} {'finite' if finite else 'not finite'} {total.hex() if way == 'copies' else ''}"


def main() -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    for way in sys.argv[2:]:
        folder = Path(sys.argv[1]) / way
        if distributed.get_rank() == 0:
            folder.mkdir()
        distributed.barrier()
        sys.stdout.write(f"{train(way, folder)}\n")  # in one piece: the ranks share a pipe
        sys.stdout.flush()
        distributed.barrier()
    distributed.destroy_process_group()


main()
