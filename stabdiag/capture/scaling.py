"""Which gradient scaler has multiplied a loss: others may be alive, of a training that is over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from stabdiag.capture.saved_tensors import Node, kind, saved

CHAIN = 4
"""Nodes between the scaling and the root: a division by the number of micro-batches, a change of type."""


def scaler_of(roots: Sequence[Any], scalers: Iterable[Any]) -> Any:
    """The first of `scalers` whose scale is a factor of one of `roots`; None where none is."""
    factors = [factor for root in roots for factor in _factors(getattr(root, "grad_fn", None))]
    for scaler in scalers:
        scale = scaler._scale if scaler._enabled else None
        if scale is not None and any(_same(factor, scale) for factor in factors):
            return scaler
    return None


def _factors(node: Node | None) -> Iterator[torch.Tensor]:
    """What the result of `node` has been multiplied by last."""
    for _ in range(CHAIN):
        if node is None:
            return
        if kind(node) == "Mul":
            sides = (saved(node, "other"), saved(node, "self"))
            yield from (side for side in sides if isinstance(side, torch.Tensor) and side.numel() == 1)
        node = node.next_functions[0][0] if node.next_functions else None


def _same(factor: torch.Tensor, scale: torch.Tensor) -> bool:
    """Whether it is that very tensor; on another device a scaler multiplies by a copy."""
    return factor.device != scale.device or factor.data_ptr() == scale.data_ptr()
