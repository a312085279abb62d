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
    used = [scaler for scaler in scalers if scaler._enabled and scaler._scale is not None]
    if not used:
        return None
    factors = [factor for root in roots for factor in _factors(getattr(root, "grad_fn", None))]
    return next((s for s in used if any(_may_be(factor, s._scale) for factor in factors)), None)


def _factors(node: Node | None) -> Iterator[torch.Tensor | None]:
    """What the result of `node` has been multiplied by last; None for what cannot be read."""
    for _ in range(CHAIN):
        if node is None:
            return
        if kind(node) == "Mul":
            sides = [side for name in ("other", "self") if (side := saved(node, name)) is not None]
            yield from (side for side in sides if isinstance(side, torch.Tensor) and side.numel() == 1)
            if not sides:
                yield None
        node = node.next_functions[0][0] if node.next_functions else None


def _may_be(factor: torch.Tensor | None, scale: torch.Tensor) -> bool:
    """Whether it is that very tensor, as far as one can tell: on another device a scaler takes a copy."""
    return factor is None or factor.device != scale.device or factor.data_ptr() == scale.data_ptr()
