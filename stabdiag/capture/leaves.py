"""The parameters that a backward pass gives gradients to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from stabdiag.capture.saved_tensors import UNORDERED, Node

MOST_NODES = 100_000


def leaves(roots: Sequence[Any]) -> Iterator[torch.Tensor]:
    """Those of the graph behind `roots`, as far as the first `MOST_NODES` operations reach."""
    ahead: list[Node] = [root.grad_fn for root in roots if getattr(root, "grad_fn", None) is not None]
    seen = set(ahead)
    while ahead and len(seen) < MOST_NODES:
        for following, _ in ahead.pop().next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                ahead.append(following)
                if following._sequence_nr() == UNORDERED:
                    yield following.variable
