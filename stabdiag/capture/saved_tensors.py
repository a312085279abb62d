"""The nodes of an autograd graph, and what they keep for the backward pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils import checkpoint

Node = Any
UNORDERED = 2**64 - 1
RECOMPUTED = f"{checkpoint.__name__}._recomputation_hook."


def created() -> int:
    """How many nodes this thread has created: the sequence number of the next one."""
    count: int = torch._C._autograd._get_sequence_nr()
    return count


def nodes_since(start: int, tensors: Iterable[torch.Tensor]) -> Iterator[Node]:
    """The nodes that `tensors` depend on, of those created since `created()` was `start`."""
    ahead = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(ahead)
    while ahead:
        node = ahead.pop()
        if not start <= node._sequence_nr() < UNORDERED:
            continue
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                ahead.append(following)


def kind(node: Node) -> str:
    """Its class without the number of the overload: `Mul` for `MulBackward0`."""
    return str(node.name()).rpartition("Backward")[0]


def saved(node: Node, name: str) -> Any:
    """What the node keeps as `name`, tensors detached; None where there is nothing, or it cannot be read.

    Hooks on saved tensors (checkpointing, offloading) are the script's code and are not run, but for that
    of a recomputation under way, which hands back the tensor itself.
    """
    raw = getattr(node, f"_raw_saved_{name}", None)
    if raw is not None and not _readable(raw):
        return None
    try:
        value = getattr(node, f"_saved_{name}", None)
    except RuntimeError:  # freed, or changed in place since
        return None
    return value.detach() if isinstance(value, torch.Tensor) else value


def _readable(raw: Any) -> bool:
    if hasattr(raw, "unpack_hook"):
        hook = raw.unpack_hook
    else:  # of older versions only the hooks in force now are known
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
        hook = hooks[1] if hooks else None
    return hook is None or f"{hook.__module__}.{hook.__qualname__}".startswith(RECOMPUTED)
