"""Optimizers that only pass on to another one, as Accelerate's does."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def stepping(optimizers: Iterable[torch.optim.Optimizer]) -> list[torch.optim.Optimizer]:
    """Those that have parameters of their own, or that show the parameters of none of the others."""
    known = list(optimizers)
    owned = {id(groups) for o in known if (groups := own_groups(o)) is not None}
    return [
        o for o in known if own_groups(o) is not None or id(getattr(o, "param_groups", None)) not in owned
    ]


def own_groups(optimizer: torch.optim.Optimizer) -> list[object] | None:
    """Its parameter groups, None where they are read off something else."""
    groups = vars(optimizer).get("param_groups")
    return groups if isinstance(groups, list) else None
