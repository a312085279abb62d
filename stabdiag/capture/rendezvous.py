"""One run directory for the processes of a world that record themselves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import count
from pathlib import Path

import torch

from stabdiag.capture.placement import in_world

PATIENCE = timedelta(seconds=30)
_numbers = count()


def meet(make: Callable[[], Path]) -> tuple[Path, bool]:
    """The directory, and whether it is for this process to keep its books: of a world rank 0 does, and
    tells the others of it through the store by which they found each other. That is no collective: a rank
    that does not come keeps nobody waiting, and where rank 0 is not heard of for 30 seconds, a process
    makes a directory of its own. So does one that records before its world is joined.
    """
    if not in_world():
        return make(), True
    store = torch.distributed.distributed_c10d._get_default_store()
    key = f"stabdiag/run/{next(_numbers)}"
    if torch.distributed.get_rank() == 0:
        path = make()
        store.set(key, str(path.absolute()))
        return path, True
    try:
        store.wait([key], PATIENCE)
    except RuntimeError:
        return make(), True
    path = Path(store.get(key).decode())
    path.mkdir(parents=True, exist_ok=True)  # a node of its own may not share the file system
    return path, False
