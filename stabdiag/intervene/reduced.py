"""Whether all processes of a world see the same gradients, so that each decides alike without asking."""

from __future__ import annotations

import torch

from stabdiag.capture.placement import in_world
from stabdiag.capture.subject import Subject

UNKNOWN = "nothing says that its gradients are the same in all processes, which would then decide apart"
PARTS = "each process holds a part of its gradients, and would decide apart"
SHARED_OUT = "ZeroRedundancyOptimizer"


def apart(subject: Subject, optimizer: torch.optim.Optimizer) -> str | None:
    """Why a decision from the gradients of `optimizer` could differ between processes; None where not."""
    if not in_world():
        return None
    # Its inner optimizer holds other parameters in each process.
    if any(type(known).__name__ == SHARED_OUT for known in (*subject.optimizers, optimizer)):
        return PARTS
    placed = [subject.placements[p].kind for group in optimizer.param_groups for p in group["params"]]
    if "sharded" in placed:
        return PARTS
    return None if placed and set(placed) == {"replicated"} else UNKNOWN
